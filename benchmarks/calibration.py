"""Measure what calibration is worth on real images: ECE, images unlike those learnt from, and the drift alarm.

    python benchmarks/calibration.py skin8 blood

Takes the models that ``benchmarks/accuracy.py`` trained (``--runs``: the folder of its runs), fits temperature and
outlier rule of each task as :class:`scripts.learning.handlers.CalibrationHandler` does, with the same functions on the
same images, and writes ``benchmarks/results/calibration.md``. Nothing is trained.
"""

from __future__ import annotations

import argparse
import csv
import io
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import RESULTS, TEST_DATA, arguments, output_folder, require_images
from monai.bundle import ConfigParser
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import ks_2samp
from tabulate import tabulate

from scripts.commands.configs import TRAIN, data_files
from scripts.deploy.inference import ImageClassifier
from scripts.deploy.inference.loading import load_image_classifier
from scripts.learning.tasks import Task
from scripts.metrics.calibration import calibration_error, errors_by_chance, fit_temperature, probabilities_at
from scripts.metrics.ranking import auroc
from scripts.model.decisions.outliers import OutlierRule, StatisticsSums, distances, image_statistics, make_rule
from scripts.utils.errors import UserError

ACCEPTANCE, LEVEL, STREAM, STREAMS = 0.95, 0.01, (50, 100), 2000
FAR, TESTED = 100, 800
Array = NDArray[Any]
Change = Callable[[torch.Tensor], torch.Tensor]


class Images:
    """What a model and the statistics say of images, each computed once."""

    def __init__(self, classifier: ImageClassifier) -> None:
        self.classifier = classifier

    def pixels(self, reference: str) -> torch.Tensor:
        return torch.as_tensor(self.classifier.prepare({"image": reference})["image"])

    def statistics(
        self, references: Sequence[str], change: Callable[[torch.Tensor], torch.Tensor] | None = None
    ) -> Array:
        changed = change or (lambda image: image)
        return np.stack([image_statistics(changed(self.pixels(name)).numpy()) for name in references])

    @torch.inference_mode()
    def logits(self, references: Sequence[str]) -> Array:
        parts = [references[start : start + 32] for start in range(0, len(references), 32)]
        return np.concatenate(
            [self.classifier.network(torch.stack(list(map(self.pixels, part)))).double().numpy() for part in parts]
        )


def planned(data: str) -> list[Task]:
    """Return the tasks of ``data``, images and all, as training has them."""
    configs, folders = arguments(data)
    parser = ConfigParser()
    parser.read_config([str(TRAIN), *(str(path) for name in configs.split(",") for path in data_files(name))])
    parser.update({key.removeprefix("--"): value for key, value in zip(folders[::2], folders[1::2], strict=True)})
    with tempfile.TemporaryDirectory() as folder:
        parser.update({"output_dir": folder})
        return list(parser.get_parsed_content("planned_tasks").tasks)


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """Return at most ``count`` items at even distances."""
    return [items[number * len(items) // min(count, len(items))] for number in range(min(count, len(items)))]


def from_zip(name: str, folder: Path) -> list[str]:
    """Unpack some images of a zip of the test data."""
    with zipfile.ZipFile(TEST_DATA / name) as archive:
        rows = list(csv.DictReader(io.TextIOWrapper(archive.open("labels.csv"), "utf-8")))
        return [archive.extract(row["path"], folder / Path(name).stem) for row in spread(rows, FAR)]


def far_sets(classifier: ImageClassifier, folder: Path, other: Sequence[Task]) -> dict[str, list[str]]:
    """Return references to images that no model here is for."""
    rng = np.random.default_rng(0)
    for number in range(FAR):
        np.save(folder / f"{number}.npy", rng.integers(0, 256, (128, 128, 3), dtype=np.uint8))
    np.savez(folder / "noise.npz", noise_images=np.stack([np.load(folder / f"{n}.npy") for n in range(FAR)]))
    scans: list[str] = []
    for file in sorted((TEST_DATA / "dicom").glob("*.dcm")):
        try:
            picture = classifier.pictures(str(file))[0]
            classifier.prepare({"image": picture})
        except (UserError, IndexError, RuntimeError):
            continue
        scans.append(picture)
    return {
        "CT, MR, X-ray and others (DICOM)": scans,
        "X-ray, CT, MR (MedNIST)": from_zip("mednist_subset_64.zip", folder),
        "histopathology": from_zip("histopath_pack.zip", folder),
        "photographs (CIFAR-10)": from_zip("cifar10_jpeg_subset.zip", folder),
        "noise": [f"{folder / 'noise.npz'}#noise/{number}" for number in range(FAR)],
        "the other data set": spread([item["image"] for task in other for item in task.test], FAR),
    }


def darker(image: torch.Tensor) -> torch.Tensor:
    """Take a fifth of the contrast away."""
    return image * 0.8


def blurred(image: torch.Tensor) -> torch.Tensor:
    """Average 3 x 3 pixels."""
    return torch.nn.functional.avg_pool2d(image[None], 3, 1, 1)[0]


def measure(data: str, other: str, runs: Path, folder: Path) -> str:
    """Measure one data set and return its section."""
    (run,) = (runs / data).glob(f"{data}-dynammo-*-s1")
    tasks = planned(data)
    rows: list[list[object]] = []
    score_rows: list[list[object]] = []
    sums, rule = StatisticsSums(), None
    for number, task in enumerate(tasks):
        images = Images(load_image_classifier(run / f"task_{number}", {"accept": "derived,burned_in,localizer"}))
        if number == 0:
            far = far_sets(images.classifier, folder, planned(other))
        labels = np.array([item["label"] for item in task.train])
        learnt_from = images.statistics([item["image"] for item in task.train])
        for label in np.unique(labels):
            sums.count(int(label), learnt_from[labels == label])
        validation = [item for known in tasks[: number + 1] for item in known.validation]
        tested = spread([item for known in tasks[: number + 1] for item in known.test], TESTED)
        unknown = spread([item for later in tasks[number + 1 :] for item in later.test], TESTED)
        own = {name: [item["image"] for item in items] for name, items in (("val", validation), ("test", tested))}
        rule = make_rule(sums, images.statistics(own["val"]), ACCEPTANCE)
        logits = {name: images.logits(references) for name, references in own.items()}
        truth = {"val": [item["label"] for item in validation], "test": [item["label"] for item in tested]}
        temperature = fit_temperature(truth["val"], logits["val"])
        row: list[object] = [task.name.split("(")[0], f"{temperature:.2f}"]
        for name in ("val", "test"):
            before, after = (probabilities_at(logits[name], value) for value in (1.0, temperature))
            errors = (calibration_error(truth[name], before), calibration_error(truth[name], after))
            chance = errors_by_chance(after)
            row += [len(truth[name]), *(f"{value:.3f}" for value in (*errors, chance.mean()))]
            row.append(f"{np.mean(chance >= errors[1]):.2f}")
        rows.append(row)
        score_rows += compared(number + 1, images, rule, temperature, own["test"], logits["test"], unknown, far)
        print(f"{data}: {task.name} measured", flush=True)
    assert rule is not None
    headers = ["after learning", "T"]
    for name in ("validation", "test"):
        headers += [f"{name} images", "ECE", "with T", "by chance", "p"]
    names = ["tasks", "score", *far, "classes not learnt yet", "accepted (%)"]
    return "\n\n".join(
        (
            f"## {data}",
            tabulate(rows, headers, tablefmt="github", disable_numparse=True),
            "AUROC of test images against:",
            tabulate(score_rows, names, tablefmt="github", disable_numparse=True),
            drift_of(images, rule, own["test"], far),
        )
    )


def compared(
    number: int,
    images: Images,
    rule: OutlierRule,
    temperature: float,
    tested: Sequence[str],
    logits: Array,
    unknown: Sequence[Any],
    far: dict[str, list[str]],
) -> list[list[object]]:
    """Return a row for the outlier score, and one for the energy of the logits beside it."""

    def score(references: Sequence[str]) -> Array:
        return -distances(images.statistics(references), rule.means, rule.precision)

    def energy(values: Array) -> Array:
        return temperature * logsumexp(values / temperature, axis=1)

    near = [item["image"] for item in unknown]
    own = score(tested)
    sets = {**far, "near": near}
    found = [_auroc(own, score(names)) if names else "" for names in sets.values()]
    energies = [_auroc(energy(logits), energy(images.logits(names))) if names else "" for names in sets.values()]
    accepted = f"{100 * np.mean(-own <= rule.threshold):.1f}"
    return [[number, "distance", *found, accepted], [number, "energy", *energies, ""]]


def _auroc(known: Array, foreign: Array) -> str:
    found = auroc(np.concatenate([known, foreign]), np.arange(len(known) + len(foreign)) < len(known))
    return "" if found is None else f"{found:.3f}"


def drift_of(images: Images, rule: OutlierRule, tested: Sequence[str], far: dict[str, list[str]]) -> str:
    """Say how often streams of images raise an alarm."""

    def score(references: Sequence[str], change: Change = lambda image: image) -> Array:
        return distances(images.statistics(references, change), rule.means, rule.precision)

    own, foreign, few = score(tested), score(far["histopathology"]), spread(tested, 400)
    streams: dict[str, list[Array]] = {
        "test images (false alarms)": [own],
        "test images, contrast 0.8": [score(few, darker)],
        "test images, blurred 3 x 3": [score(few, blurred)],
        "test images, every tenth of histopathology": [*[own] * 9, foreign],
    }
    rows = [[name, *(alarms(sources, rule, size) for size in STREAM)] for name, sources in streams.items()]
    table = tabulate(rows, ["images", *(f"N = {size}" for size in STREAM)], tablefmt="github", disable_numparse=True)
    title = f"Drift alarms (%) in {STREAMS} streams of N images drawn from each, level {100 * LEVEL:.0f} %,"
    return f"{title} against the {len(rule.reference)} reference distances:\n\n{table}"


def alarms(sources: Sequence[Array], rule: OutlierRule, size: int) -> str:
    """Return the share of streams that raise an alarm, with equally many images of each source, in per cent."""
    rng, count = np.random.default_rng(0), 0
    for _ in range(STREAMS):
        parts = np.array_split(np.arange(size), len(sources))
        drawn = [rng.choice(source, len(part), replace=False) for source, part in zip(sources, parts, strict=True)]
        count += ks_2samp(np.concatenate(drawn), rule.reference).pvalue < LEVEL
    return f"{100 * count / STREAMS:.1f}"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("data", nargs="+", choices=("skin8", "blood"))
    parser.add_argument("--runs", type=Path, default=output_folder("skin8").parent, help="folder of the runs")
    given = parser.parse_args()
    require_images()
    torch.set_num_threads(1)
    others = {"skin8": "blood", "blood": "skin8"}
    sections = []
    for data in given.data:
        with tempfile.TemporaryDirectory() as folder:
            sections.append(measure(data, others[data], given.runs, Path(folder)))
            print(sections[-1], flush=True)
    text = "# Calibration, outliers and drift\n\n" + INTRODUCTION + "\n\n" + "\n\n".join(sections) + "\n"
    (RESULTS / "calibration.md").write_text(text)


INTRODUCTION = f"""`python benchmarks/calibration.py skin8 blood`, on the models of DynaMMo (seed 1) that \
`benchmarks/accuracy.py` trained. ECE: expected calibration error, 15 bins, 0..1; *with T*: with the temperature, \
which is fitted on the validation images (they are neither learnt from nor tested with); *by chance*: the mean ECE \
that a perfectly calibrated model of these probabilities has on so many images; *p*: how often it has one at least as \
large as that with T (below 0.05: not calibrated). *distance*: of image statistics, what \
the bundle uses; *energy*: of the logits, for comparison. *accepted*: test images of learnt classes that are no \
outliers, wanted {100 * ACCEPTANCE:.0f} %."""

if __name__ == "__main__":
    main()
