"""Measure what sites tell by what they contribute, what hiding it costs, and what adding gives where hospitals differ.

    python benchmarks/federation.py tell      # membership and reconstruction from sums of 5 to 1,000 images
    python benchmarks/federation.py noise     # accuracy with (epsilon, delta)
    python benchmarks/federation.py sites     # pooled, one-shot, FedAvg, each site alone; own calibration
    python benchmarks/federation.py scale     # 100 sites, 50 classes: seconds, bytes, memory

Each writes its table to benchmarks/results/federation_<word>.md. All but the last read real images of MedMNIST's layout
(CONTINUAL_TEST_DATA) as a frozen MobileNetV2 sees them at 64 px; shrinkage is 0.1 where nothing is said.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "bundle"))

import numpy as np
import torch
from clock import clock, machine
from sklearn.decomposition import FastICA
from sklearn.metrics import roc_auc_score
from tabulate import tabulate
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from scripts.federation.contribution import ClassSums, Identity, read_contribution, write_contribution
from scripts.federation.masks import Round
from scripts.federation.noise import Noise, nearest_positive
from scripts.federation.pool import Pool
from scripts.federation.rounds import Update, average, for_client
from scripts.federation.site import Site
from scripts.metrics.accuracy_matrix import mean_class_recall
from scripts.metrics.calibration import calibration_error, fit_temperature, probabilities_at
from scripts.model.networks import ContinualNet
from scripts.model.networks.closed_form import ridge
from scripts.model.networks.heads import UnifiedHead

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("CONTINUAL_TEST_DATA", ROOT.parent / "shared" / "data"))
WEIGHTS = "weights/mobilenet_v2_imagenet_from_tflite_int8.pth"
SETS = {
    "blood": "bloodmnist_rebuilt_28.npz",
    "derma": "dermamnist_from_jpeg.npz",
    "pneumonia": "pneumoniamnist_rebuilt.npz",
    "breast": "breastmnist_rebuilt_28.npz",
}
SIDE, SHRINKAGE = 64, 0.1
MOST = {"train": 4000, "val": 500, "test": 1000}  # images of a set that are read, at even distances
LEVELS = {"few": ("features.2", "features.5"), "every": "every"}
MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
DELTA = 1e-5


class Part(NamedTuple):
    """Feature vectors that end with a 1, float64 [N, D], and class numbers."""

    x: Tensor
    y: Tensor


@cache
def features(data: str, part: str, levels: str) -> Part:
    """Return what a frozen network sees of a part of a set."""
    with np.load(DATA / SETS[data]) as file:
        pixels, labels = file[f"{part}_images"], file[f"{part}_labels"].reshape(-1)
    chosen = np.linspace(0, len(labels) - 1, min(len(labels), MOST[part])).astype(int)
    pixels, labels = pixels[chosen], labels[chosen]
    if pixels.ndim == 3:
        pixels = np.repeat(pixels[..., None], 3, 3)
    network = ContinualNet(
        "mobilenet_v2", "levels", None, str(DATA / WEIGHTS), levels=LEVELS[levels], image_size=SIDE
    ).eval()
    network.grow(1)
    rows = []
    with torch.inference_mode():
        for batch in torch.from_numpy(pixels).split(64):
            images = interpolate(batch.permute(0, 3, 1, 2).float() / 255, (SIDE, SIDE), mode="bilinear")
            rows.append(network.head.embed(network.backbone((images - MEAN) / STD)[:, 0]).double())
    x = torch.cat(rows).clone()
    return Part(torch.cat([x, torch.ones(len(x), 1, dtype=torch.double)], 1), torch.from_numpy(labels.astype(int)))


def solved(sums: Mapping[int, Tensor], shrinkage: float = SHRINKAGE) -> Tensor:
    """Return the head [C, D] of classes whose unweighted sums are given, by number."""
    counts = {label: second[-1, -1].clamp(min=1) for label, second in sums.items()}
    total = sum((second / counts[label] for label, second in sums.items()), torch.zeros(()))
    assert isinstance(total, Tensor)
    return ridge(total, torch.stack([sums[label][-1] / counts[label] for label in sorted(sums)]), shrinkage)


def sums_of(part: Part) -> dict[int, Tensor]:
    """Return the unweighted sums of each class that has an image."""
    return {int(c): part.x[part.y == c].T @ part.x[part.y == c] for c in part.y.unique()}


def added(sites: Sequence[Part]) -> dict[int, Tensor]:
    """Return the sums of all sites."""
    total: dict[int, Tensor] = {}
    for site in sites:
        for label, second in sums_of(site).items():
            total[label] = total[label] + second if label in total else second
    return total


def recall(head: Tensor, test: Part, classes: Sequence[int]) -> float:
    """Return the mean class recall in per cent of a head over some classes, on images of all."""
    said = torch.tensor(list(classes))[(test.x @ head.T).argmax(1)]
    return 100 * (mean_class_recall(test.y.tolist(), said.tolist()) or 0)


# -- what a contribution tells --------------------------------------------------------------------------------------


def membership(second: Tensor, members: Tensor, others: Tensor) -> float:
    """Return the AUROC of telling members from other images of the class, by leverage in their sum and a small ridge.

    Of a member x, x'(S + r)^-1 x is under 1, and images beside the span of the sum have more.
    """
    ridge_term = 1e-6 * second.diagonal().abs().mean() * torch.eye(len(second), dtype=torch.double)
    inverse = torch.linalg.pinv(second + ridge_term, hermitian=True)
    scores = [-((x @ inverse) * x).sum(1) for x in (members, others)]
    truth = np.repeat([1, 0], [len(members), len(others)])
    return float(roc_auc_score(truth, torch.cat(scores).nan_to_num().numpy()))


def reconstruction(second: Tensor, members: Tensor) -> tuple[float, float]:
    """Return how near features that are rebuilt from a sum come to the true ones, and how near chance comes.

    What is rebuilt is what images differ in: vectors less their mean. The sum gives these but for a rotation, which
    independent components (FastICA) undo; chance is any rotation. Nearness is the absolute correlation over features
    with the nearest one that was rebuilt, its mean over images.
    """
    count, total = second[-1, -1], second[-1, :-1]
    values, vectors = torch.linalg.eigh(second[:-1, :-1] - torch.outer(total, total) / count)
    rank = min(len(members) - 1, int((values > 1e-9 * values.max()).sum()))
    factor = vectors[:, -rank:] * values[-rank:].clamp(min=0).sqrt()
    ica = FastICA(rank, max_iter=60, tol=1e-3, random_state=0, whiten="unit-variance")
    turned = torch.linalg.qr(torch.randn(rank, rank, generator=torch.Generator().manual_seed(0)).double())[0]
    true = (members - members.mean(0))[:, :-1].numpy()
    found = [ica.fit_transform(factor.numpy()).T, (factor @ turned).T.numpy()]
    rebuilt, chance = (np.abs(np.corrcoef(true, one)[: len(true), len(true) :]).max(1).mean() for one in found)
    return float(rebuilt), float(chance)


def tell() -> str:
    """Print membership and reconstruction from sums of few and many images of a class."""
    rows = []
    for levels in LEVELS:
        part = features("blood", "train", levels)
        label = int(part.y.bincount().argmax())
        own = part.x[part.y == label]
        own = own[torch.randperm(len(own), generator=torch.Generator().manual_seed(0))]
        clip = float(features("derma", "train", levels).x[:, :-1].norm(dim=1).median())  # of other images: public
        for count in (5, 20, 100, 1000):
            members, others = own[: min(count, len(own) // 2)], own[len(own) // 2 :]
            second = members.T @ members
            near, chance = reconstruction(second, members) if len(members) <= 100 else (float("nan"), float("nan"))
            noisy = {}
            for epsilon in (8.0, 1.0):
                noise = Noise(epsilon, DELTA, clip)
                clipped = noise.clipped(members)
                full = nearest_positive(noise.added(clipped.T @ clipped, 1))
                noisy[epsilon] = membership(full, clipped, noise.clipped(others))
            masked = masked_sum(second)
            rows.append(
                [
                    *(own.shape[1] - 1, len(members), "leaves" if len(members) >= own.shape[1] - 1 else "is refused"),
                    *(membership(second, members, others), near, chance),
                    *(membership(masked, members, others), noisy[8.0], noisy[1.0]),
                ]
            )
    headers = ["features", "images", "plain sum", "member AUROC", "rebuilt", "chance", "masked", "eps 8", "eps 1"]
    return (
        "What the sum of x'x of one class of BloodMNIST tells of its images. Member AUROC: images in the sum against "
        "others of the class, by leverage (0.5: nothing is told); masked and with noise (epsilon, delta 1e-5, clip: "
        "the median length of DermaMNIST's) beside it. Rebuilt: correlation of true features, less their mean, with "
        "the nearest ones that independent components of the sum give, beside that of the same sum turned at random; "
        "not tried on more than 100 images.\n\n" + tabulate(rows, headers, tablefmt="github", floatfmt=".2f")
    )


def masked_sum(second: Tensor) -> Tensor:
    """Return what one of three masked files says of a sum."""
    from scripts.federation.fixed_point import from_fixed, symmetric, to_fixed, triangle

    with tempfile.TemporaryDirectory() as name:
        sites = [Site.make(site, Path(name)) for site in "abc"]
        agreed = Round("benchmark", {site.name: site.card for site in sites}, ["class"])
        half = to_fixed(triangle(second))
        return symmetric(from_fixed(half + agreed.mask(sites[0], "class.0", len(half))))


# -- what noise costs -----------------------------------------------------------------------------------------------


def noise_cost() -> str:
    """Print the accuracy of a head solved from noisy sums, of one site and of three."""
    rows = []
    for levels in LEVELS:
        train, test = features("blood", "train", levels), features("blood", "test", levels)
        classes = sorted({*train.y.tolist()})
        clip = float(features("derma", "train", levels).x[:, :-1].norm(dim=1).median())
        plain = recall(solved(sums_of(train)), test, classes)
        for epsilon in (1.0, 3.0, 10.0, 30.0, 100.0):
            noise = Noise(epsilon, DELTA, clip)
            found = []
            for sites in (1, 3):
                parts = [Part(train.x[start::sites], train.y[start::sites]) for start in range(sites)]
                total: dict[int, Tensor] = {}
                for part in parts:
                    for label in classes:
                        x = noise.clipped(part.x[part.y == label])
                        total[label] = total.get(label, torch.zeros(())) + noise.added(x.T @ x, 1)
                heads = [noisy_head(total, shrinkage) for shrinkage in (0.1, 1.0)]
                found += [recall(head, test, classes) for head in heads]
            rows.append([train.x.shape[1] - 1, epsilon, plain, *found])
    headers = ["features", "epsilon", "plain MCR", "1 site", "1 site, shr. 1", "3 sites", "3 sites, shr. 1"]
    return (
        f"Mean class recall (%) on {len(test.y)} test images of BloodMNIST of a head solved from the sums of "
        f"{len(train.y)} images with noise (delta {DELTA:g}, Opacus' RDP accountant, clip as above), shrinkage 0.1 and "
        "1; of three sites each adds its own noise.\n\n" + tabulate(rows, headers, tablefmt="github", floatfmt=".1f")
    )


def noisy_head(sums: Mapping[int, Tensor], shrinkage: float) -> Tensor:
    """Solve as the pool does where there is noise."""
    counts = {label: second[-1, -1].clamp(min=1) for label, second in sums.items()}
    total = nearest_positive(sum((second / counts[c] for c, second in sums.items()), torch.zeros(())))  # type: ignore[arg-type]
    return ridge(total, torch.stack([sums[c][-1] / counts[c] for c in sorted(sums)]), shrinkage)


# -- hospitals that differ ------------------------------------------------------------------------------------------


def joined(parts: Sequence[Part]) -> Part:
    """Return several parts as one."""
    return Part(torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts]))


def dirichlet(part: Part, sites: int, alpha: float, seed: int = 1) -> list[Part]:
    """Divide a part, each class by shares drawn from a Dirichlet distribution (Hsu et al., arXiv 1909.06335)."""
    generator = np.random.default_rng(seed)
    indices: list[list[int]] = [[] for _ in range(sites)]
    for label in part.y.unique().tolist():
        own = generator.permutation(torch.where(part.y == label)[0].numpy())
        ends = (np.cumsum(generator.dirichlet([alpha] * sites)) * len(own)).astype(int)[:-1]
        for site, chunk in enumerate(np.split(own, ends)):
            indices[site] += chunk.tolist()
    return [Part(part.x[own], part.y[own]) for own in indices if own]


def federated_average(sites: Sequence[Part], classes: int, rounds: int = 10, epochs: int = 2) -> Tensor:
    """Train a linear head on the frozen features by FedAvg, and return it, [C, D]."""
    center, spread = (function(torch.cat([s.x[:, :-1] for s in sites]), 0) for function in (torch.mean, torch.std))
    generator = torch.Generator().manual_seed(1)
    scaled = [Part((s.x[:, :-1] - center) / spread.clamp(min=1e-6), s.y) for s in sites]
    weights = {
        "head.linear.weight": torch.zeros(classes, len(center), dtype=torch.double),
        "head.linear.bias": torch.zeros(classes, dtype=torch.double),
    }
    names = [str(number) for number in range(classes)]
    for _ in range(rounds):
        updates = []
        for site in scaled:
            own = {key: value.clone().requires_grad_() for key, value in weights.items()}
            optimizer = torch.optim.Adam(own.values(), lr=1e-3)
            for _ in range(epochs):
                for batch in torch.randperm(len(site.y), generator=generator).split(64):
                    logits = site.x[batch] @ own["head.linear.weight"].T + own["head.linear.bias"]
                    optimizer.zero_grad()
                    cross_entropy(logits, site.y[batch]).backward()
                    optimizer.step()
            updates.append(Update({key: value.detach() for key, value in own.items()}, names, len(site.y)))
        weights = for_client(average(updates), names)
    slope = weights["head.linear.weight"] / spread.clamp(min=1e-6)
    return torch.cat([slope, (weights["head.linear.bias"] - slope @ center)[:, None]], 1)


def errors(head: Tensor, sites: Sequence[tuple[Part, Part]]) -> list[float]:
    """Return the calibration error (%) on the sites' test images: as it is, of one temperature, of each site's own."""
    logits = [[(part.x @ head.T).numpy() for part in pair] for pair in sites]
    labels = [[part.y.tolist() for part in pair] for pair in sites]
    common = fit_temperature(sum((own[0] for own in labels), []), np.concatenate([own[0] for own in logits]))
    found = []
    for temperatures in (
        [1.0] * len(sites),
        [common] * len(sites),
        [fit_temperature(own_labels[0], own[0]) for own_labels, own in zip(labels, logits, strict=True)],
    ):
        said = [probabilities_at(own[1], value) for own, value in zip(logits, temperatures, strict=True)]
        each = [calibration_error(own[1], rows.tolist()) or 0 for own, rows in zip(labels, said, strict=True)]
        found.append(100 * float(np.mean(each)))
    return found


def by_modality(part: str, levels: str) -> list[Part]:
    """Return each set as a site, its classes numbered after those of the sets before."""
    found, first = [], 0
    for data in SETS:
        own = features(data, part, levels)
        found.append(Part(own.x, own.y + first))
        first += int(features(data, "train", levels).y.max()) + 1
    return found


def hospitals() -> str:
    """Print what is reached by sites together, by rounds, and by each alone."""
    levels, rows = "every", []
    blood = {part: features("blood", part, levels) for part in MOST}
    cases = {
        f"blood, 5 sites, Dirichlet {alpha}": [dirichlet(blood[part], 5, alpha) for part in MOST]
        for alpha in (0.1, 0.5)
    }
    cases["4 sites, a modality each"] = [by_modality(part, levels) for part in MOST]
    for name, (train, val, test) in cases.items():
        whole, tested = joined(train), joined(test)
        classes = sorted({*whole.y.tolist()})
        pooled, one_shot = solved(sums_of(whole)), solved(added(train))
        rounds = federated_average(train, len(classes))
        alone = [recall(solved(sums_of(site)), tested, sorted({*site.y.tolist()})) for site in train]
        pairs = [(a, b) for a, b in zip(val, test, strict=False) if len(a.y) > 20 and len(b.y) > 20]
        rows.append(
            [
                *(name, recall(pooled, tested, classes), recall(one_shot, tested, classes)),
                *(float((pooled - one_shot).abs().max()), recall(rounds, tested, classes)),
                *(float(np.mean(alone)), max(alone), *errors(one_shot, pairs)),
            ]
        )
    headers = ["", "pooled", "one-shot", "head differs by", "FedAvg, 10 rounds", "alone, mean", "alone, best"]
    headers += ["ECE as it is", "one temperature", "own temperature"]
    formats = ("", ".1f", ".1f", ".0e", *[".1f"] * 6)
    return (
        "Mean class recall (%) over the classes of all sites, on the test images of all. FedAvg trains the linear head "
        "on the same frozen features (Adam 1e-3, 2 epochs a round). ECE (%): mean over sites of the expected "
        "calibration error of the one-shot head; a temperature fitted on the validation images of all, or on each "
        "site's own.\n\n" + tabulate(rows, headers, tablefmt="github", floatfmt=formats)
    )


# -- scale ----------------------------------------------------------------------------------------------------------


def scale(sites: int = 100, classes: int = 50, width: int = 512) -> str:
    """Print seconds, bytes and memory of a federation of simulated sites, and what float32 changes."""
    identity = Identity(
        network={"backbone": "resnet18", "head": "unified", "adapter": None, "sites": [], "levels": "every", "seed": 0},
        image={"size": 64, "mean": [0.5], "std": [0.5]},
        views=[[]],
        base="0" * 64,
        features="0" * 64,
    )
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generator = torch.Generator().manual_seed(0)
        for number in range(sites):
            Site.make(f"site{number}", folder)

        def sums(seed: int) -> list[ClassSums]:
            """Return the sums of classes that differ by their mean, of one draw of images."""
            x = torch.randn(width + 8, width, generator=generator.manual_seed(seed), dtype=torch.double)
            base, mean, found = x.T @ x, x.sum(0), []
            for label in range(classes):
                shift = label / classes
                whole = torch.empty(width + 1, width + 1, dtype=torch.double)
                whole[:-1, :-1] = base + shift * (mean + mean[:, None]) + len(x) * shift**2
                whole[-1, :-1] = whole[:-1, -1] = mean + len(x) * shift
                whole[-1, -1] = len(x)
                found.append(ClassSums(f"class{label}", len(x), whole))
            return found

        heads = {}
        for kind, tolerance in (("float32", 1e-6), ("64-bit fixed point", 0.0)):
            count = sites if tolerance else 10
            seconds, files = 0.0, []
            for number in range(count):
                own = sums(number)
                started = clock()
                file = folder / f"{number}.{'f' if tolerance else 'i'}.safetensors"
                write_contribution(
                    file, Site(folder, f"site{number}"), identity, own, "frozen", {0.1: 1.0}, tolerance=tolerance
                )
                seconds += clock() - started
                files.append(file)
            started = clock()
            given = [read_contribution(file, Site(folder, f"site{n}").card) for n, file in enumerate(files)]
            checked = clock() - started
            pool = Pool(given, {(one.site, own["name"]): own["name"] for one in given for own in one.classes})
            started = clock()
            pool.check()
            head = UnifiedHead(width, [classes]).double()
            pool.solve(head, 0.1, pool.classes())
            took = clock() - started
            first = Pool(given[:10], pool.names)
            small = UnifiedHead(width, [classes]).double()
            first.solve(small, 0.1, first.classes())
            heads[kind] = small.linear.weight.detach()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            rows.append([kind, count, files[0].stat().st_size / 1e6, seconds / count, checked, took, peak])
    a, b = heads.values()
    change = float((a - b).abs().max() / b.abs().max())
    full = classes * (width + 1) ** 2 * 8 / 1e6
    headers = ["numbers", "sites", "MB a site", "s to write one", "s to check all", "s to add and solve", "peak GB"]
    return (
        f"{sites} simulated sites, {classes} classes each, {width} features; halves of symmetric matrices are stored "
        f"({full:.0f} MB a site if whole and in 64 bits). Of the same 10 sites the head from float32 differs by "
        f"{change:.1e} of its largest weight. {machine()}; seconds of the processor.\n\n"
        + tabulate(rows, headers, tablefmt="github", floatfmt=".2f")
    )


WORDS = {"tell": tell, "noise": noise_cost, "sites": hospitals, "scale": scale}


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("word", choices=WORDS)
    word = parser.parse_args().word
    torch.set_num_threads(1)
    if word != "scale" and not DATA.is_dir():
        parser.error(f"no real images: {DATA} does not exist (set CONTINUAL_TEST_DATA)")
    text = f"`python benchmarks/federation.py {word}`. {WORDS[word]()}\n"
    print(text)
    (ROOT / "benchmarks" / "results" / f"federation_{word}.md").write_text(text)


if __name__ == "__main__":
    main()
