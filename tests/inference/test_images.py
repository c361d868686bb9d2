"""Which images of a folder are classified: all that can be read, by name; the rest is written down."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import pytest
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from PIL import Image
from torch import nn

from scripts.errors import UserError
from scripts.inference import (
    ModelIdentity,
    ResultFolder,
    ScreeningHandler,
    find_images,
    require_images,
)


def save(path: Path, mode: str = "RGB", size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)
    return path


def test_images_are_found_in_all_folders_and_sorted_by_name(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "deep/er/c.tif", ".hidden.png", ".cache/d.png"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    items = find_images(str(tmp_path))
    assert [item["name"] for item in items] == ["a.JPG", "b.png", "deep/er/c.tif"]
    assert all(Path(item["image"]) == tmp_path / item["name"] for item in items)


def test_only_files_of_the_kind_that_is_asked_for_are_found(tmp_path: Path) -> None:
    for name in ("a.NPY", "b.nii.gz", "c.png"):
        (tmp_path / name).touch()
    assert [item["name"] for item in find_images(str(tmp_path), suffixes=(".npy", ".nii.gz"))] == ["a.NPY", "b.nii.gz"]
    with pytest.raises(UserError, match=r"has no images: put some there \(.npy\)"):
        require_images([], str(tmp_path), (".npy",))


def test_a_missing_folder_and_an_empty_one_are_told_apart(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    with pytest.raises(UserError, match=r"missing is missing: .*'dataset_dir'"):
        require_images(find_images(missing), missing)
    with pytest.raises(UserError, match="has no images: put some there"):
        require_images(find_images(str(tmp_path)), str(tmp_path))


def screened(folder: Path, output: Path) -> SupervisedEvaluator:
    """Return an engine that starts with a screening and then does nothing with each batch of names."""
    dataset = Dataset(find_images(str(folder)), lambda item: item["name"])
    engine = SupervisedEvaluator(
        "cpu",
        DataLoader(dataset, batch_size=2),
        nn.Identity(),
        iteration_update=lambda engine, batch: engine.seen.extend(batch),  # type: ignore[attr-defined]
        decollate=False,
    )
    engine.seen = []
    results = ResultFolder(str(output), lambda: ModelIdentity("a", "task_0", "0" * 64, ("b", "c")))
    ScreeningHandler(dataset, results).attach(engine)
    engine.add_event_handler(Events.COMPLETED, results.finish)
    return engine


def test_refused_images_are_left_out_and_written_down(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, output = tmp_path / "images", tmp_path / "out"
    for number in range(3):
        save(folder / f"good{number}.png")
    save(folder / "print.jpg", "CMYK")
    save(folder / "glass.png", "RGBA")
    save(folder / "deep.png", "I;16")
    (folder / "broken.png").write_bytes(save(folder / "good0.png", size=(64, 64)).read_bytes()[:60])
    engine = screened(folder, output)
    with caplog.at_level(logging.WARNING):
        engine.run()
    assert engine.seen == ["good0.png", "good1.png", "good2.png"]
    with open(output / "refused.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["image", "code", "reason"]
    assert [name for name, _, _ in rows] == ["broken.png", "deep.png", "glass.png", "print.jpg"]
    assert [code for _, code, _ in rows] == ["unreadable", "unsupported_kind", "transparent", "unsupported_kind"]
    for (name, _, reason), word in zip(rows, ("cannot be read", "16", "transparent", "CMYK"), strict=True):
        assert word in reason
        assert sum(name in record.message for record in caplog.records) == 1


def test_an_old_list_of_refusals_does_not_stay(tmp_path: Path) -> None:
    save(tmp_path / "images" / "good.png")
    (tmp_path / "refused.csv").write_text("image,reason\nold.png,of an earlier run\n")
    screened(tmp_path / "images", tmp_path).run()
    assert (tmp_path / "refused.csv").read_text() == "image,code,reason\n"


def test_a_folder_of_refused_images_only_is_an_error(tmp_path: Path) -> None:
    save(tmp_path / "images" / "print.jpg", "CMYK")
    engine = screened(tmp_path / "images", tmp_path)
    with pytest.raises(UserError, match=r"all 1 images are refused: .*refused.csv says why"):
        engine.run()
    assert "print.jpg" in (tmp_path / "refused.csv").read_text()
