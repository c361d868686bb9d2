"""Print where the processor's seconds go from the start of the training command to its first step.

It runs the main job on a few images: importing torch and MONAI, importing the bundle, reading the config and building
what it says, and what comes before the first step.

python benchmarks/startup.py
"""

import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))

SMALL = {
    "source#train_per_class": 8,
    "source#test_per_class": 2,
    "source#val_per_class": 0,
    "source#sets": ["clusters"],
}
TIMES = [("Python", time.process_time())]


class FirstStep(Exception):
    """The first step is taken."""


def mark(name: str) -> None:
    """Remember that ``name`` has come to an end."""
    TIMES.append((name, time.process_time()))


def enter() -> None:
    """The first batch reaches the network."""
    mark("from there to the first step")
    raise FirstStep


def main() -> None:
    """Start, and print."""
    import torch

    mark("import torch")
    import monai.bundle

    mark("import MONAI")
    import scripts.learning.handlers
    import scripts.learning.sources

    mark("import the bundle")
    with tempfile.TemporaryDirectory() as name:
        own: dict[str, Any] = {"dataset_dir": f"{name}/data", "output_dir": f"{name}/run", "memory_size": 16, **SMALL}
        workflow = monai.bundle.ConfigWorkflow(
            config_file=f"{scripts.bundle_root()}/configs/train.json", workflow_type="train", device="cpu", **own
        )
        scripts.learning.sources.generated.ensure_generated(
            own["dataset_dir"], 0, 8, 2
        )  # the images are not ours to count
        before = time.process_time()
        workflow.initialize()
        network: Any = workflow.trainer.continual_network
        mark("read the config, build all")
        network.register_forward_pre_hook(lambda module, inputs: enter())
        with suppress(Exception):
            workflow.run()
    print(f"\nCPU seconds to the first step, torch {torch.__version__}, {torch.get_num_threads()} thread")
    drawn = before - TIMES[3][1]
    for (_, since), (what, until) in zip(TIMES, TIMES[1:], strict=False):
        print(f"{until - since - (drawn if what.startswith('read') else 0):6.2f}  {what}")


if __name__ == "__main__":
    main()
