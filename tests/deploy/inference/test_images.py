"""Which images of a folder are classified: all that can be read, by name; the rest is written down."""

from __future__ import annotations

import codecs
import csv
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from PIL import Image
from torch import nn

from scripts.deploy.inference import ResultFolder, ScreeningHandler, find_images, require_images
from scripts.imaging.decoding.reasons import ImageRefused
from scripts.imaging.transforms.reader import read_rgb
from scripts.learning.sources import ImageFolder, LabelsCsv
from scripts.model.decisions.results import ModelIdentity
from scripts.utils.errors import UserError


def save(path: Path, mode: str = "RGB", size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)
    return path


def test_images_are_found_in_all_folders_and_sorted_by_name(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "deep/er/c.tif", ".hidden.png", ".cache/d.png"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    items = find_images(str(tmp_path))
    assert [item["name"] for item in items] == ["a.JPG", "b.png", "deep/er/c.tif", "notes.txt"]
    assert all(Path(item["image"]) == tmp_path / item["name"] for item in items)


def test_a_name_that_is_no_utf_8_can_be_written(tmp_path: Path) -> None:
    save(tmp_path / os.fsdecode(b"caf\xe9.png"))
    save(tmp_path / "caf\xe9.png")
    items = find_images(str(tmp_path))
    assert [item["name"] for item in items] == ["caf\xe9.png", "caf\\udce9.png"]
    assert [read_rgb(item["image"]).shape for item in items] == [(8, 8, 3)] * 2


def test_a_folder_that_cannot_be_opened_is_refused_by_name() -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        save(folder / "a.png").chmod(0o644)
        save(folder / "closed" / "b.png")
        (folder / "closed").chmod(0)
        with as_nobody():
            items = find_images(name)
            assert [item["name"] for item in items] == ["a.png", "closed"]
            with pytest.raises(ImageRefused, match="folder .*/closed cannot be opened: let it be read"):
                read_rgb(items[1]["image"])
            with pytest.raises(UserError, match="folder .*/closed cannot be opened .*: let it be read"):
                ImageFolder(name).groups()
            (folder / "closed").rename(folder / "lost+found")
            (folder / "labels.csv").write_text("path,label\na.png,a\n")
            (group,) = LabelsCsv(name, split=None).groups()  # which need not look there
            assert group.left_out["folders that cannot be opened"] == [f"{name}/lost+found"]
        (folder / "lost+found").chmod(0o755)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Act as a user without rights, where this is root, who may open everything."""
    own = os.geteuid()
    codecs.lookup("utf-8-sig")  # Python itself may lie where nobody else may look
    if own == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(own)


def test_a_missing_folder_a_file_and_an_empty_folder_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / ".file").touch()
    with pytest.raises(UserError, match="image folder .*/.file is a file: give the folder .*'dataset_dir'"):
        require_images([], str(tmp_path / ".file"))
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
    results = ResultFolder(str(output), ModelIdentity("a", "task_0", "0" * 64, ("b", "c")))
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
