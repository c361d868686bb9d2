"""Let a backbone learn from images without labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scripts.commands.configs import CONFIGS, TRAIN, find_config
from scripts.commands.found import Found, find_data
from scripts.commands.workflow import tell, workflow
from scripts.imaging.decoding.kinds import is_picture
from scripts.learning.sources.folders import files_below

PRETRAIN = CONFIGS / "pretrain.yaml"
PICTURES = CONFIGS / "unlabelled.yaml"


def pretrain(data: str, keys: Sequence[str], method: str, network: str | None, show: bool) -> str:
    """Let a backbone learn from images, and write its weights.

    Args:
        data: a folder of pictures, or as of :func:`scripts.commands.found.find_data`.
        keys: ``--key value`` words.
        method: the part that says how: ``simsiam`` or ``moco``.
        network: the name of a page in ``configs/networks``.
        show: return the equal line of MONAI, and train nothing.

    Raises:
        UserError: where something given cannot be meant, or the training ends with one.
    """
    found = find_images(data)
    if not show:
        tell(f"Pretraining on {data}: {found.words}, whose labels are not read.")
    networks = [find_config("networks", network)] if network else []
    files = [TRAIN, *networks, *found.files, PRETRAIN, find_config("parts", method)]
    return workflow(files, [*found.keys, *keys], show)


def find_images(data: str) -> Found:
    """Find out what images are meant; a folder of pictures needs no classes."""
    folder = Path(data)
    if folder.is_dir() and any(map(is_picture, files_below(data))):
        return Found("unlabelled", (PICTURES,), ("--dataset_dir", str(folder.absolute())), "pictures in any folders")
    return find_data(data)
