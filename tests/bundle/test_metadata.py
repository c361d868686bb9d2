"""The bundle's metadata: valid, and true to the pins."""

from __future__ import annotations

import configparser
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
METADATA = ROOT / "bundle" / "configs" / "metadata.json"
SCHEMA = Path(__file__).with_name("metadata_schema.json")


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def settings() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def requirements() -> list[Requirement]:
    lines = settings()["options"]["install_requires"].splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]


def pins() -> dict[NormalizedName, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def remove_channel_def(metadata: dict[str, Any]) -> None:
    del metadata["network_data_format"]["outputs"]["pred"]["channel_def"]


def name_a_channel_in_words(metadata: dict[str, Any]) -> None:
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"]["first"] = "holes"


def call_the_output_an_image(metadata: dict[str, Any]) -> None:
    metadata["network_data_format"]["outputs"]["pred"]["type"] = "image"


def forget_the_version(metadata: dict[str, Any]) -> None:
    del metadata["version"]


def leave_the_changelog_empty(metadata: dict[str, Any]) -> None:
    metadata["changelog"] = {}


def pin_to_a_range(metadata: dict[str, Any]) -> None:
    metadata["required_packages_version"]["scipy"] = ">=1"


BREAKS = [
    remove_channel_def,
    name_a_channel_in_words,
    call_the_output_an_image,
    forget_the_version,
    leave_the_changelog_empty,
    pin_to_a_range,
]


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(read(SCHEMA))


def test_metadata_is_valid() -> None:
    jsonschema.validate(read(METADATA), read(SCHEMA))


@pytest.mark.parametrize("damage", BREAKS, ids=lambda damage: damage.__name__)
def test_broken_metadata_is_refused(damage: Callable[[dict[str, Any]], None]) -> None:
    metadata = copy.deepcopy(read(METADATA))
    damage(metadata)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(metadata, read(SCHEMA))


def test_verify_metadata_accepts_ours_and_refuses_a_broken_one(python: Callable[..., Any], tmp_path: Path) -> None:
    def verify(metadata: dict[str, Any]) -> Any:
        """Run MONAI's own command on ``metadata`` against our schema; a file that is there is not downloaded."""
        (tmp_path / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
        files = ["--meta_file", tmp_path / "metadata.json", "--filepath", SCHEMA]
        return python(["-m", "monai.bundle", "verify_metadata", *files], tmp_path)

    accepted = verify(read(METADATA))
    assert accepted.returncode == 0, accepted.stderr
    metadata = read(METADATA)
    remove_channel_def(metadata)
    refused = verify(metadata)
    assert refused.returncode != 0
    assert "'channel_def' is a required property" in refused.stderr


def test_the_version_is_the_same_everywhere() -> None:
    metadata = read(METADATA)
    assert metadata["version"] in metadata["changelog"]
    assert settings()["metadata"]["version"] == metadata["version"]
    assert f"## [{metadata['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_required_packages_are_the_direct_dependencies_at_their_pins() -> None:
    metadata = read(METADATA)
    stated = {canonicalize_name(name): version for name, version in metadata["required_packages_version"].items()}
    for name, key in (("monai", "monai_version"), ("torch", "pytorch_version"), ("numpy", "numpy_version")):
        stated[canonicalize_name(name)] = metadata[key]
    direct = {canonicalize_name(requirement.name) for requirement in requirements()}
    assert stated == {name: pins()[name] for name in direct}


def test_every_pin_is_in_the_range_of_setup_cfg() -> None:
    versions = pins()
    ranges = {canonicalize_name(requirement.name): requirement.specifier for requirement in requirements()}
    assert {name: versions[name] for name in ranges if versions[name] not in ranges[name]} == {}


def test_monai_before_its_security_fixes_is_refused() -> None:
    (monai,) = (requirement for requirement in requirements() if requirement.name == "monai")
    assert "1.6.0" not in monai.specifier
    assert "1.6.1" in monai.specifier
