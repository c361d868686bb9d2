"""Contact sheets: one picture a class that shows some of its training and test images, to be looked at by a person."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torchvision.utils import make_grid

from scripts.imaging.transforms.reader import read_picture
from scripts.learning.planning.examine import TEST, TRAINING
from scripts.learning.tasks.labels import numbers_of
from scripts.learning.tasks.task import Task
from scripts.utils.errors import UserError
from scripts.utils.evenly import even_places
from scripts.utils.files import cannot_write, write_atomically

FOLDER = "contact_sheets"
_PRIVATE = 0o700
_WHITE, _BLACK = 255, 0
_GAP = 4
_LINE = 22
_NAME_BYTES = 100


def sheet_names(tasks: Sequence[Task]) -> dict[int, str]:
    """Return a file name for each class, by label: ``<task>-<class>.png``, safe on every file system, none twice."""
    names: dict[int, str] = {}
    for task in tasks:
        for label, name in enumerate(task.classes, task.first):
            file = f"{_safe(task.name)}-{_safe(name.removeprefix(f'{task.name}/'))}"
            taken = {other.casefold() for other in names.values()}
            while f"{file}.png".casefold() in taken:
                file += f"-{label}"
            names[label] = f"{file}.png"
    return names


def write_contact_sheets(
    tasks: Sequence[Task], readable: Collection[str], folder: str, images: int, columns: int, tile: int
) -> None:
    """Write ``contact_sheets/<task>-<class>.png`` below ``folder``, a folder that its owner alone may open.

    What earlier plans left there is removed.

    Args:
        tasks: the tasks.
        readable: the images that can be read; others are left out, and so is a class without any.
        folder: of the plan.
        images: the most training, and the most test images a class shows, chosen at even distances; 0: no sheets.
        columns: images side by side.
        tile: the side of an image on the sheet, in pixels; its shape is kept.

    Raises:
        UserError: where a number is out of range, or the folder cannot be written.
    """
    for key, value, least in (("sheet_images", images, 0), ("sheet_columns", columns, 1), ("sheet_tile", tile, 8)):
        if value < least:
            raise UserError(f"{key} is {value}: give {least} or more")
    sheets = Path(folder) / FOLDER
    try:
        sheets.mkdir(parents=True, exist_ok=True)
        sheets.chmod(_PRIVATE)
        for left in sheets.glob("*.png"):
            left.unlink()
    except OSError as error:
        raise cannot_write(sheets, error) from error

    def write(label: int, file: str) -> None:
        title, shown = _shown(tasks, label, readable)
        if images and any(shown.values()):
            sheet = contact_sheet(title, shown, images, columns, tile)
            write_atomically(sheets / file, lambda target: sheet.save(target, format="PNG"))

    names = sheet_names(tasks)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, names.keys(), names.values()))


def contact_sheet(title: str, shown: dict[str, list[str]], images: int, columns: int, tile: int) -> Image.Image:
    """Draw one sheet.

    Args:
        title: its first line.
        shown: readable images by what they are called above them, in that order.
        images: the most of each that are drawn, chosen at even distances.
        columns: images side by side.
        tile: the side of an image, in pixels.
    """
    columns = min(columns, max(len(listed[:images]) for listed in shown.values()))
    parts = [_line(title)]
    for name, listed in shown.items():
        chosen = [listed[place] for place in even_places(len(listed), images)]
        parts.append(_line(f"{name}: {len(chosen)} of {len(listed)} images"))
        if chosen:
            tiles = torch.stack([_tile(image, tile) for image in chosen])
            grid = make_grid(tiles, nrow=columns, padding=_GAP, pad_value=_WHITE)
            parts.append(Image.fromarray(grid.permute(1, 2, 0).numpy()))
    sheet = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), (_WHITE,) * 3)
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def _shown(tasks: Sequence[Task], label: int, readable: Collection[str]) -> tuple[str, dict[str, list[str]]]:
    """Return the title of a class's sheet, and its readable images by split."""
    task = next(task for task in tasks if task.first <= label < task.first + len(task.classes))
    splits = ((TRAINING, task.train), (TEST, task.test))
    return f"{task.classes[label - task.first]}   (task {task.name})", {
        split: [item["image"] for item in items if label in numbers_of(item) and item["image"] in readable]
        for split, items in splits
    }


def _tile(image: str, side: int) -> torch.Tensor:
    """Return an image, or the middle slice of a volume, [3, side, side] of uint8, its shape kept."""
    fitted = ImageOps.pad(Image.fromarray(read_picture(image)), (side, side), color=(_WHITE,) * 3)
    return torch.from_numpy(np.array(fitted)).permute(2, 0, 1)


def _line(text: str) -> Image.Image:
    text = " ".join(text.split())  # Pillow measures one line only
    font = ImageFont.load_default(_LINE * 2 / 3)
    line = Image.new("RGB", (int(font.getlength(text)) + 2 * _GAP, _LINE), (_WHITE,) * 3)
    ImageDraw.Draw(line).text((_GAP, _LINE / 2), text, fill=(_BLACK,) * 3, font=font, anchor="lm")
    return line


def _safe(name: str) -> str:
    plain = re.sub(r"[^\w.+-]+", "_", name).strip("._")
    return plain.encode()[:_NAME_BYTES].decode(errors="ignore") or "unnamed"
