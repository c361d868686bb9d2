"""Files made to do harm: code in a pickle or a config, bombs, names that lead elsewhere. All are refused by name."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import pickle
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image

from scripts.commands.app import main
from scripts.deploy.inference.loading import load_image_classifier
from scripts.deploy.inference.serving import Served
from scripts.deploy.service.answering import Answering, Sent
from scripts.imaging.decoding.process import decoder
from scripts.imaging.decoding.reasons import ImageRefused, Reason
from scripts.imaging.decoding.worker import MEMORY
from scripts.imaging.transforms import read_rgb, read_volume
from scripts.learning.handlers.checkpoint import read_checkpoint
from scripts.model.folder import TrainedModel, write_model
from scripts.utils.errors import UserError, find_user_error

EVERYTHING = "#?accept=missing_identifiers,localizer,derived,burned_in,unknown_orientation"


class Code:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.mark), "w")


def npz(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def array(values: np.ndarray, **options: Any) -> bytes:
    with io.BytesIO() as file:
        np.save(file, values, **options)
        return file.getvalue()


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """A file that only hostile code makes."""
    return tmp_path / "harm"


def test_a_pickle_in_a_model_or_a_checkpoint_is_not_run(
    mark: Path, tmp_path: Path, make_model: Any, vouch: Any
) -> None:
    model = make_model(tmp_path / "model")
    for write in (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))):
        write({"weight": Code(mark)}, model / "model.pt")
        vouch(model)
        with pytest.raises(UserError, match="cannot be read as a model"):
            TrainedModel.open(model)
        write({"task": Code(mark)}, model / "checkpoint.pt")
        with pytest.raises(UserError, match="checkpoint.pt"):
            read_checkpoint(model / "checkpoint.pt")
    assert not mark.exists()


def test_a_pickle_in_an_array_is_not_run(mark: Path, tmp_path: Path) -> None:
    content = array(np.array([Code(mark)], dtype=object), allow_pickle=True)
    path = npz(tmp_path / "a.npz", {"train_images.npy": content})
    with pytest.raises(UserError, match="objects"):
        read_rgb(f"{path}#train/0")
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ImageRefused):
        read_volume(str(tmp_path / "a.npy"))
    assert not mark.exists()


@pytest.mark.parametrize("key", ["size", "mean", "colour", "presentation", "image", "backbone", "tasks"])
def test_code_in_a_model_s_description_is_not_run(key: str, mark: Path, tmp_path: Path, make_model: Any) -> None:
    code = f"$open({str(mark)!r}, 'w')"
    target = {"_target_": "builtins.open", "file": str(mark), "mode": "w"}
    model = make_model(tmp_path / "model")
    description = json.loads((model / "network.json").read_text())
    weights = torch.load(model / "model.pt", weights_only=True)
    for value in (code, [code], target, {"name": code}, {"name": target}, [{"name": code, "classes": [code]}]):
        changed = {"image": {**description["image"], key: value}} if key in description["image"] else {key: value}
        write_model(model, weights, {**description, **changed})
        try:
            load_image_classifier(model)
        except Exception as error:
            assert find_user_error(error), (value, error)
    assert not mark.exists()


def test_members_of_a_zip_that_lead_elsewhere_stay_where_they_are(tmp_path: Path) -> None:
    picture = array(np.zeros((1, 8, 8, 3), np.uint8))
    folder = tmp_path / "data"
    folder.mkdir()
    path = npz(folder / "a.npz", {"../../train_images.npy": picture, "/etc/test_images.npy": picture})
    for split in ("train", "../../train", "/etc/test"):
        with pytest.raises(UserError):
            read_rgb(f"{path}#{split}/0")
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["a.npz", "data"]


@pytest.mark.slow
def test_bombs_take_no_memory(tmp_path: Path, scans: Any, peak_memory: Any) -> None:
    whole = io.BytesIO()
    Image.new("1", (40000, 40000)).save(whole, "PNG")  # 200 MB of nothing in 200 kB
    (tmp_path / "a.png").write_bytes(whole.getvalue())
    volume = Path(scans.nifti(tmp_path / "b.nii", np.zeros((4, 4, 4), np.uint8)))
    header = bytearray(volume.read_bytes())
    struct.pack_into("<3h", header, 42, 1024, 1024, 600)
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(header) + 600 * gzip.compress(bytes(2**20)))
    image = scans.make_dicom(np.zeros((8, 8), np.uint8), pydicom.uid.DeflatedExplicitVRLittleEndian)
    image.PixelData = bytes(2**27)
    pydicom.dcmwrite(tmp_path / "d.dcm", image, enforce_file_format=True)
    for name in ("a.png", "b.nii.gz#0/middle"):
        with pytest.raises(ImageRefused):
            read_rgb(str(tmp_path / name))
    assert read_rgb(f"{tmp_path / 'd.dcm'}{EVERYTHING}").shape == (8, 8, 3)  # what follows its pixels is not theirs
    child = decoder()._child
    assert child is not None
    assert 0 < peak_memory(child.pid) < MEMORY


@pytest.mark.slow
def test_two_bombs_at_once_hold_a_request_up_for_less_than_two_limits(
    tmp_path: Path, trained_model: Path, scans: Any
) -> None:
    """Bombs of the service's every thread, each within what a file may be once inflated."""
    seconds = 5.0
    bomb = Path(scans.bomb(tmp_path / "bomb.dcm", 2**28)).read_bytes()
    image = Path(scans.dicom(tmp_path / "image.dcm", np.zeros((8, 8), np.uint8))).read_bytes()
    classifier = load_image_classifier(trained_model, {"seconds": seconds})
    answering = Answering(Served(trained_model, lambda folder: (classifier, None)), 2, 2**20)

    async def ask(content: bytes) -> tuple[Reason | None, float]:
        started, reason = time.monotonic(), None
        try:
            await answering.answer(Sent(io.BytesIO(content), "image"))
        except ImageRefused as refusal:
            reason = refusal.reason
        return reason, time.monotonic() - started

    async def ask_all() -> list[tuple[Reason | None, float]]:
        return await asyncio.gather(ask(bomb), ask(bomb), ask(image))

    found = asyncio.run(ask_all())
    answering.close()
    assert [reason for reason, _ in found] == [Reason.TOO_SLOW, Reason.TOO_SLOW, None]
    assert found[2][1] < 2 * seconds


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tiff", "jpeg"])
def test_a_picture_that_takes_minutes_is_given_up(kind: str, tmp_path: Path) -> None:
    """A page after the other, a scan after the other: 13 MB, and 1 MB."""
    if kind == "tiff":
        tags = [(256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 1)]
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
        size = 2 + len(entries) + 4
        pages = [
            struct.pack("<H", len(tags)) + entries + struct.pack("<I", 16 + size * (n + 1)) for n in range(100_000)
        ]
        content = b"II*\0" + struct.pack("<I", 16) + bytes(8) + b"".join(pages)
    else:
        whole = io.BytesIO()
        Image.new("L", (5000, 5000)).save(whole, "JPEG", progressive=True)
        end = whole.getvalue().rindex(b"\xff\xda")
        content = whole.getvalue()[:-2] + 1000 * whole.getvalue()[end:-2] + b"\xff\xd9"
    (tmp_path / "image").write_bytes(content)
    with pytest.raises(ImageRefused) as refusal:
        read_rgb(str(tmp_path / "image"))
    assert refusal.value.reason is Reason.TOO_SLOW


def test_a_zip_that_lies_about_its_size_is_refused_by_it(tmp_path: Path) -> None:
    header = io.BytesIO()
    shape = (10**6, 10**3, 10**3, 3)
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    path = npz(tmp_path / "a.npz", {"train_images.npy": header.getvalue() + bytes(100)})
    with pytest.raises(UserError, match="does not fit its"):
        read_rgb(f"{path}#train/0")
    content = bytearray(path.read_bytes())
    true, lie = struct.pack("<I", len(header.getvalue()) + 100), struct.pack("<I", 2**32 - 2)
    path.write_bytes(content.replace(true, lie))
    with pytest.raises(UserError):
        read_rgb(f"{path}#train/0")
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


def test_a_picture_whose_header_lies_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    struct.pack_into(">II", content, 16, 13000, 13000)  # within Pillow's limit: half a gigabyte
    struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageRefused):
        read_rgb(str(tmp_path / "a.png"))


def test_a_folder_may_hold_links_pipes_loops_and_odd_names(tmp_path: Path, trained_model: Path, scans: Any) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "link.png").symlink_to(tmp_path / "secret.txt")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.png")
    os.mkfifo(folder / "pipe.dcm")
    uid = "../../../tmp/evil"
    with pytest.warns(UserWarning):  # pydicom, that this is no UID
        scans.dicom(folder / "a.dcm", np.zeros((8, 8), np.uint8), SOPInstanceUID=uid, StudyInstanceUID=uid)
    Image.new("RGB", (8, 8)).save(folder / "a\n..png")
    before = {path for path in tmp_path.rglob("*") if output not in path.parents}
    status = main(["classify", str(trained_model), str(folder), "--output", str(output)])
    assert status == 3
    assert {path for path in tmp_path.rglob("*") if output not in path.parents} - before == {output}
    said = json.loads((output / "predictions.json").read_text())
    assert [entry["image"] for entry in said["images"]] == ["a\n..png", "a.dcm"]
    assert not list(output.rglob("*.sr.dcm"))  # a report would have to repeat what is no UID
    assert "secret" not in (output / "predictions.json").read_text()
