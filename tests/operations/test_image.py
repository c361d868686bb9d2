"""The image without a builder: its steps run here, and what they make works for nobody special on a read-only root."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

ROOT = Path(__file__).resolve().parents[2]
USER = 10001
SECONDS = 200
# what docker's --read-only, --user and --tmpfs do: a root that cannot be written, but for a folder of data and /tmp
ISOLATED = """
set -e
umask 022
mount --make-rprivate /
mount --bind / "$ROOT_"
mount --bind "$DATA" "$ROOT_$DATA"
mount -t tmpfs tmpfs "$ROOT_/tmp"
case "$BASE" in /root/*) mount -t tmpfs -o mode=755 tmpfs "$ROOT_/root" ;; esac  # where nobody else may look
mkdir -p "$ROOT_$BASE" "$ROOT_$DATA" "$ROOT_$MODEL" "$ROOT_$BUILT"
for place in "$BASE" "$DATA" "$MODEL" "$BUILT"; do mount --bind "$place" "$ROOT_$place"; done
mount -o remount,bind,ro "$ROOT_"
mount -o remount,bind,ro "$ROOT_$BUILT"
mount --bind /proc "$ROOT_/proc"
mount --bind /dev "$ROOT_/dev"
exec chroot "$ROOT_" setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs --bounding-set=-all \\
    env -i HOME="$DATA" MPLCONFIGDIR=/tmp/matplotlib PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1 \\
    sh -c 'cd "$0"; touch /opt/written 2>/dev/null && exit 99; exec "$@"' "$DATA" "$@"
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.getuid() != 0 or shutil.which("setpriv") is None, reason="only root makes a root of its own"),
]


def context(target: Path) -> None:
    """Copy what .dockerignore lets pass."""
    for line in (ROOT / ".dockerignore").read_text().split():
        if line.startswith("!"):
            source, copy = ROOT / line[1:], target / line[1:]
            copy.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy)


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """The environment that the first stage makes, by its own steps; the packages it needs are those installed here."""
    source, target = tmp_path / "src", tmp_path / "opt"
    context(source)
    text = (ROOT / "operations/Dockerfile").read_text().replace("\\\n", " ")
    (steps,) = re.findall(r"^RUN (python3 -m venv.*)$", text, re.M)
    *make, remove = steps.replace("/opt/dynammo", str(target)).replace("python3", sys.executable, 1).split(" && ")
    assert "uninstall" in remove
    venv, *installs = (step.strip() for step in make)
    subprocess.run(["sh", "-c", venv], cwd=source, check=True)
    packages = next(target.glob("lib/python*/site-packages"))
    (packages / "here.pth").write_text(sysconfig.get_path("purelib") + "\n")
    setuptools, own = installs
    if subprocess.run(["sh", "-c", setuptools], cwd=source).returncode:
        pytest.skip("setuptools cannot be fetched")
    environment = {**os.environ, "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1"}
    subprocess.run(["sh", "-c", own], cwd=source, check=True, env=environment)
    subprocess.run(["sh", "-c", remove.strip()], cwd=source, check=True)
    assert not list(target.glob("bin/pip*"))
    return target


def test_the_node_runs_without_rights_on_a_root_that_is_read_only(
    built: Path, make_model: Callable[..., Path], free_port: Callable[[], int], tmp_path: Path
) -> None:
    data, model, root = tmp_path / "data", make_model(tmp_path / "model"), tmp_path / "root"
    data.mkdir(mode=0o700)
    root.mkdir()
    os.chown(data, USER, USER)
    subprocess.run(["chmod", "-R", "a+rX", model, built], check=True)  # as COPY --from leaves it
    places = {"ROOT_": root, "BASE": sys.base_prefix, "DATA": data, "MODEL": model, "BUILT": built}
    environment = {**os.environ, **{name: str(place) for name, place in places.items()}}
    health = free_port()
    words = ["node", model, "--queue_dir", data / "node", "--port", free_port(), "--health_port", health]
    command = ["unshare", "--mount", "sh", "-c", ISOLATED, "sh", built / "bin/dynammo", *words]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*map(str, command)], env=environment, stdout=log, stderr=log)
    try:
        end = time.monotonic() + SECONDS
        while True:
            assert process.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()
            try:
                assert requests.get(f"http://127.0.0.1:{health}/readyz", timeout=5).status_code == 200
                break
            except requests.ConnectionError:
                time.sleep(0.2)
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert re.findall(r"^(?:Uid|Gid):\t(\d+)", status, re.M) == [str(USER)] * 2
        assert re.findall(r"^Cap(?:Eff|Bnd|Prm):\t(\d+)$", status, re.M) == ["0" * 16] * 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, (tmp_path / "log").read_text()
    finally:
        process.kill()
    assert sorted(path.name for path in (data / "node").iterdir()) == ["images", "key", "lock", "queue.db"]
