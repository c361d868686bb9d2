"""Tiny ImageNet, on a small tree written as the original is."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from scripts.learning.sources import TinyImageNet
from scripts.utils.errors import UserError


def _image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


@pytest.fixture
def tiny_imagenet(tmp_path: Path) -> Path:
    root = tmp_path / "tiny-imagenet-200"
    for name in ("n01443537", "n01629819"):
        for number in range(2):
            _image(root / "train" / name / "images" / f"{name}_{number}.JPEG")
    for number in range(2):
        _image(root / "val/images" / f"val_{number}.JPEG")
    lines = ["val_0.JPEG\tn01629819\t0\t32\t44\t62", "val_1.JPEG\tn01443537\t52\t55\t57\t59"]
    (root / "val/val_annotations.txt").write_text("\n".join(lines) + "\n")
    return root


def test_tiny_imagenet_tests_with_its_annotated_images(tiny_imagenet: Path) -> None:
    (group,) = TinyImageNet(str(tiny_imagenet)).groups()
    assert group.classes == ("n01443537", "n01629819")
    assert [len(items) for items in group.train.values()] == [2, 2]
    assert group.test["n01629819"] == [{"image": str(tiny_imagenet / "val/images/val_0.JPEG")}]


def test_a_wrong_tiny_imagenet_is_named(tiny_imagenet: Path) -> None:
    table = tiny_imagenet / "val/val_annotations.txt"
    table.write_text("val_0.JPEG\tn99999999\t0\t0\t1\t1\n")
    with pytest.raises(UserError, match="names the class 'n99999999', which .*train has no folder of"):
        TinyImageNet(str(tiny_imagenet)).groups()
    table.write_text("val_9.JPEG\tn01443537\t0\t0\t1\t1\n")
    with pytest.raises(UserError, match="names 1 missing images, the first .*val_9.JPEG"):
        TinyImageNet(str(tiny_imagenet)).groups()
    table.unlink()
    with pytest.raises(UserError, match="val_annotations.txt is missing: the layout is .*tiny-imagenet-200.zip"):
        TinyImageNet(str(tiny_imagenet)).groups()
