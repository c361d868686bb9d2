"""A time stamp (RFC 3161) of the head shows that the log had these events at that time, and tells one written anew."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from scripts.deploy.versions.audit import AuditLog
from scripts.deploy.versions.timestamps import stamp_request, stamped
from scripts.utils.errors import UserError
from scripts.utils.signing import SigningKey

AUTHORITY = """
[req]
distinguished_name = name
prompt = no
[name]
CN = An authority
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[tsa]
basicConstraints = CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
[stamping]
serial = serial
signer_digest = sha256
default_policy = 1.2.3.4
digests = sha256, sha512
"""


class Authority:
    """An authority for time stamps on this machine, by openssl."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "config").write_text(AUTHORITY)
        (folder / "serial").write_text("01\n")
        new = "-newkey rsa:2048 -nodes -config config"
        self.call(f"req -x509 {new} -extensions ca -days 2 -keyout ca.key -out ca.pem")
        self.call(f"req {new} -subj /CN=stamps -keyout tsa.key -out tsa.csr")
        issue = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile config -extensions tsa"
        self.call(f"x509 -req -in tsa.csr {issue} -out tsa.pem")

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.pem"

    def call(self, words: str) -> None:
        subprocess.run(["openssl", *words.split()], cwd=self.folder, check=True, capture_output=True)

    def answer(self, request: bytes) -> Path:
        (self.folder / "request.tsq").write_bytes(request)
        signer = "-config config -section stamping -signer tsa.pem -inkey tsa.key"
        self.call(f"ts -reply -queryfile request.tsq {signer} -out answer.tsr")
        return self.folder / "answer.tsr"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("no authority for time stamps: install openssl")
    return Authority(tmp_path / "authority")


def heads(log: AuditLog) -> list[str]:
    return [event["hash"] for event in log.events()]


def test_a_stamp_says_which_events_were_there_and_when(authority: Authority, tmp_path: Path) -> None:
    SigningKey(tmp_path / "key").make()
    log = AuditLog(tmp_path / "audit.jsonl", tmp_path / "key")
    log.add("added", {"version": 1}, "Zoe")
    log.add("added", {"version": 2}, "Zoe")
    answer = authority.answer(stamp_request(log.head))
    log.add("promoted", {"version": 2}, "Zoe")
    number, time = stamped(answer, authority.certificate, heads(log))
    assert number == 2
    assert abs(datetime.now(UTC) - time) < timedelta(minutes=5)

    another = Authority(tmp_path / "another")
    with pytest.raises(UserError, match="is no stamp of the authority"):
        stamped(answer, another.certificate, heads(log))
    forged = AuditLog(tmp_path / "forged.jsonl", tmp_path / "key2")
    SigningKey(tmp_path / "key2").make()
    forged.add("added", {"version": 7}, "Mallory")
    with pytest.raises(UserError, match="it was cut or written anew"):
        stamped(answer, authority.certificate, heads(forged))
    content = bytearray(answer.read_bytes())
    content[-20] ^= 1  # of the signature
    answer.write_bytes(content)
    with pytest.raises(UserError):
        stamped(answer, authority.certificate, heads(log))
    with pytest.raises(UserError, match="cannot read the time stamp"):
        stamped(tmp_path / "nowhere", authority.certificate, heads(log))
