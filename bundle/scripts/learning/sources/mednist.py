"""MedNIST: six kinds of X-ray, CT and MR image, one folder a class."""

from __future__ import annotations

import os

from monai.apps import MedNISTDataset

from scripts.learning.sources.download import fetch_archive


def ensure_mednist(root: str, download: bool = False) -> str:
    """Return the folder of MedNIST's class folders; unpack the archive, or fetch it, where they are missing.

    Args:
        root: the folder of the archive ``MedNIST.tar.gz``, or of the folder ``MedNIST`` itself.
        download: fetch the archive where there is none.

    Raises:
        UserError: where it cannot be downloaded, or is not the published one.
    """
    folder = os.path.join(root, MedNISTDataset.dataset_folder_name)
    archive = os.path.join(root, os.path.basename(MedNISTDataset.resource))
    if not os.path.isdir(folder) and (download or os.path.isfile(archive)):
        fetch_archive(MedNISTDataset.resource, root, MedNISTDataset.md5)
    return folder
