"""Print what the edge gains: latencies of one network in eager torch and exported, and the runner's start and memory.

python benchmarks/edge.py                     # MobileNetV2, 224 px, merged adapters and folded ones
python benchmarks/edge.py --backbone timm:deit_tiny_patch16_224 --image_size 128 --adapters bottleneck lora
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from PIL import Image
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))

from scripts.deploy.export.exporter import IMAGES, INT8, ONNX, Exporter, Scores, latencies, only_convolutions
from scripts.imaging.image_spec import ImageSpec
from scripts.model.decisions.results import ModelIdentity
from scripts.model.folder import TrainedModel
from scripts.model.networks import AdaptedBackbone, Classifier, ContinualNet, Convolutions, LowRank
from scripts.model.networks.adapters import ADAPTERS, Adapter

BUNDLE = Path(__file__).resolve().parent.parent / "bundle"
TASKS = [{"name": "a", "classes": ["a", "b"]}, {"name": "b", "classes": ["c", "d"]}]
EAGER, CHANNELS_LAST = "eager", "channels_last"


def trained(backbone: str, adapter: Adapter, size: int) -> Classifier:
    """Return the inference network after two tasks, untrained: its speed does not depend on what it has learnt."""
    network = ContinualNet(backbone, adapter=adapter, image_size=size)
    for task in TASKS:
        network.grow(len(task["classes"]))
        network.add_adapters()
    network.merge()
    return network.merge_and_unload(TASKS)


def export(network: Classifier, size: int, folder: str) -> None:
    """Write the files; the 8-bit one is kept however bad it is, since nothing was learnt."""
    images = torch.rand(8, 3, size, size)
    image = ImageSpec(size, [0.5] * 3, [0.5] * 3)
    identity = ModelIdentity("benchmark", "0", "", ("a", "b", "c", "d"))
    trained = TrainedModel(Path(folder), {}, identity, image, network)
    test = [{"image": images, "label": network(images).argmax(1)}]
    Exporter(trained, folder, lambda: images.split(4), test, 1e-2, 1.0).run()


class ChannelsFirst(AdaptedBackbone):
    """A backbone that does not lay its channels last, as torch would not by itself."""

    def _channels_last(self, x: torch.Tensor) -> torch.Tensor:
        return x


def channels_first(network: Classifier) -> Classifier:
    """Return a copy of a network that computes in torch's own layout."""
    plain = copy.deepcopy(network)
    plain.backbone.__class__ = ChannelsFirst
    return plain


def variants(network: Classifier, folder: str, threads: int) -> dict[str, Scores]:
    """Return what is measured, by name."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    sessions = {
        name: onnxruntime.InferenceSession(str(Path(folder, name)), options, ["CPUExecutionProvider"])
        for name in (ONNX, INT8)
    }
    plain = only_convolutions(network)

    def in_bfloat16(image: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return plain(image)

    return {
        EAGER: channels_first(plain),
        CHANNELS_LAST: plain,
        "channels_last, bf16": in_bfloat16,
        "channels_last, compiled": torch.compile(plain),
        "ONNX": lambda image: torch.from_numpy(sessions[ONNX].run(None, {IMAGES: image.numpy()})[0]),
        "ONNX, int8": lambda image: torch.from_numpy(sessions[INT8].run(None, {IMAGES: image.numpy()})[0]),
    }


def start(model: Path) -> tuple[float, float]:
    """Return the seconds from nothing to the first result of the runner, and its peak memory in MB (Linux)."""
    code = (
        "import re, sys; from scripts.deploy.edge.__main__ import main; main(sys.argv[1:]); "
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"
    )
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "image.png")
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (500, 600, 3), dtype=np.uint8)).save(image)
        command = [sys.executable, "-c", code, str(model), str(image)]
        started = time.perf_counter()
        with subprocess.Popen(command, cwd=BUNDLE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            json.loads(process.stdout.readline())
            seconds = time.perf_counter() - started
            return seconds, int(process.stdout.readline()) / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--adapters", nargs="+", default=[Convolutions.kind, LowRank.kind], choices=sorted(ADAPTERS))
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    threads = torch.get_num_threads()
    image = torch.rand(1, 3, given.image_size, given.image_size)
    print(
        f"{given.backbone}, {given.image_size} px, one image, {threads} threads; median of {given.rounds} turns; "
        f"{platform.processor() or platform.machine()}"
    )
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for kind in given.adapters:
            network = trained(given.backbone, ADAPTERS[kind](), given.image_size)
            export(network, given.image_size, folder)
            found = latencies(variants(network, folder, threads), image, given.rounds)
            rows += [
                [kind, how, f"{1000 * s:.1f}", f"{s / found[EAGER]:.2f}", f"{s / found[CHANNELS_LAST]:.2f}"]
                for how, s in found.items()
            ]
        print(
            tabulate(
                rows,
                headers=["adapters", "run", "ms", "to eager", "to channels_last"],
                tablefmt="github",
                disable_numparse=True,
            )
        )
        starts = [start(Path(folder, INT8)) for _ in range(3)]
        seconds, memory = (statistics.median(values) for values in zip(*starts, strict=True))
        print(f"Runner, int8: first result after {seconds:.2f} s, at most {memory:.0f} MB of memory")


if __name__ == "__main__":
    main()
