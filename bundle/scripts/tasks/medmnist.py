"""Data sets kept as npz files in the MedMNIST layout: ``{train,test}_images`` and ``{train,test}_labels``."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np

from scripts.errors import UserError
from scripts.tasks.task import Group, Item
from scripts.transforms.reader import holds_volumes, npz_array

_ORGANS = (
    "bladder",
    "femur-left",
    "femur-right",
    "heart",
    "kidney-left",
    "kidney-right",
    "liver",
    "lung-left",
    "lung-right",
    "pancreas",
    "spleen",
)

CLASSES: dict[str, tuple[str, ...]] = {
    "adrenalmnist3d": ("normal", "hyperplasia"),
    "bloodmnist": (
        "basophil",
        "eosinophil",
        "erythroblast",
        "immature granulocytes",
        "lymphocyte",
        "monocyte",
        "neutrophil",
        "platelet",
    ),
    "breastmnist": ("malignant", "normal, benign"),
    "dermamnist": (
        "actinic keratoses and intraepithelial carcinoma",
        "basal cell carcinoma",
        "benign keratosis-like lesions",
        "dermatofibroma",
        "melanoma",
        "melanocytic nevi",
        "vascular lesions",
    ),
    "fracturemnist3d": ("buckle rib fracture", "nondisplaced rib fracture", "displaced rib fracture"),
    "nodulemnist3d": ("benign", "malignant"),
    "octmnist": ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
    "organamnist": _ORGANS,
    "organcmnist": _ORGANS,
    "organsmnist": _ORGANS,
    "organmnist3d": (
        "liver",
        "kidney-right",
        "kidney-left",
        "femur-right",
        "femur-left",
        "bladder",
        "heart",
        "lung-right",
        "lung-left",
        "spleen",
        "pancreas",
    ),
    "pathmnist": (
        "adipose",
        "background",
        "debris",
        "lymphocytes",
        "mucus",
        "smooth muscle",
        "normal colon mucosa",
        "cancer-associated stroma",
        "colorectal adenocarcinoma epithelium",
    ),
    "pneumoniamnist": ("normal", "pneumonia"),
    "retinamnist": ("0", "1", "2", "3", "4"),
    "synapsemnist3d": ("inhibitory synapse", "excitatory synapse"),
    "tissuemnist": (
        "Collecting Duct, Connecting Tubule",
        "Distal Convoluted Tubule",
        "Glomerular endothelial cells",
        "Interstitial endothelial cells",
        "Leukocytes",
        "Podocytes",
        "Proximal Tubule Segments",
        "Thick Ascending Limb",
    ),
    "vesselmnist3d": ("vessel", "aneurysm"),
}
"""Class names of the MedMNIST sets with one label an image or volume (source: MedMNIST v2, its INFO table)."""


class MedMnist:
    """Reads one npz file (to be split into tasks), or a chain of them (each a group).

    A file is known by the start of its name: ``bloodmnist_28.npz`` is bloodmnist, and its classes get their names from
    `CLASSES`. The classes of other files are "0", "1", ... In a chain class names become ``<set>/<class>``.

    Args:
        files: the npz file, or several in task order.
        root: the folder that relative ``files`` start from.
        names: names of the sets; ``None`` takes the MedMNIST name, or else the file's without ``.npz``.
    """

    def __init__(self, files: str | Sequence[str], root: str = "", names: Sequence[str] | None = None) -> None:
        chain = [files] if isinstance(files, str) else list(files)
        if names is not None and len(names) != len(chain):
            raise UserError(f"names has {len(names)} entries for {len(chain)} npz files: give one name a file")
        self.files = [os.path.abspath(os.path.join(root, file)) for file in chain]
        self.names = list(names) if names is not None else [_known(file) or _stem(file) for file in self.files]

    def groups(self) -> list[Group]:
        """Return a group a file."""
        return [self._group(name, file) for name, file in zip(self.names, self.files, strict=True)]

    def _group(self, name: str, file: str) -> Group:
        train, test = _labels(file, "train"), _labels(file, "test")
        known = _known(file)
        classes = CLASSES[known] if known else tuple(str(number) for number in range(int(train.max()) + 1))
        for split, labels in (("train", train), ("test", test)):
            wrong = labels[(labels < 0) | (labels >= len(classes))]
            if wrong.size:
                raise UserError(
                    f"{split}_labels of {file} has the label {wrong[0]}: out of range, there are {len(classes)} "
                    f"classes, 0 to {len(classes) - 1}"
                )
        prefix = f"{name}/" if len(self.files) > 1 else ""
        named = tuple(f"{prefix}{member}" for member in classes)
        return Group(name, named, *(_by_class(file, s, y, named) for s, y in (("train", train), ("test", test))))


def _stem(file: str) -> str:
    return os.path.splitext(os.path.basename(file))[0]


def _known(file: str) -> str | None:
    found = re.match(r"[a-z]+mnist(3d)?", _stem(file))
    return found.group() if found and found.group() in CLASSES else None


def _labels(file: str, split: str) -> np.ndarray:
    """Return the labels of one split, ``[N]``, once images and labels are found to fit each other."""
    images, labels = npz_array(file, f"{split}_images"), npz_array(file, f"{split}_labels")
    colour = images.ndim == 4 and images.shape[3] == 3
    if images.dtype != np.uint8 or not (images.ndim == 3 or colour or holds_volumes(images)):
        raise UserError(
            f"{split}_images of {file} is {images.dtype} {list(images.shape)}: "
            "it must be uint8 [N, H, W], [N, H, W, 3] or, for volumes, [N, D, H, W]"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.shape not in ((len(images),), (len(images), 1)):
        raise UserError(
            f"{split}_labels of {file} is {labels.dtype} {list(labels.shape)}: "
            f"it must hold one whole number for each of the {len(images)} images"
        )
    if not len(images):
        raise UserError(f"{split}_images of {file} is empty: training and test images are needed")
    return labels.reshape(-1).astype(np.int64)


def _by_class(file: str, split: str, labels: np.ndarray, classes: tuple[str, ...]) -> dict[str, list[Item]]:
    return {
        name: [{"image": f"{file}#{split}/{index}"} for index in np.flatnonzero(labels == number)]
        for number, name in enumerate(classes)
    }
