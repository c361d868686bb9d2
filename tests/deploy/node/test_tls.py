"""Who shows no certificate of ours gets nothing and keeps nobody out: with dcmtk, Orthanc and real certificates."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from scripts.deploy.node.destinations import StoreDestination, Unreachable, WebDestination
from scripts.deploy.node.receiver import Receiver
from scripts.deploy.node.tls import Certificates, certificates
from scripts.deploy.node.web import make_client
from scripts.deploy.queue import ImageQueue, State
from scripts.utils.errors import UserError

# dcmtk's, not those that pynetdicom puts beside this Python
PATHS = os.pathsep.join(path for path in os.get_exec_path() if Path(path) != Path(sys.executable).parent)
GREY = np.arange(40 * 48, dtype=np.uint8).reshape(40, 48)


class Authority:
    """Signs certificates for this machine.

    Args:
        folder: made; holds the files.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, folder.name)])
        self._write("authority.pem", self._signed(self._name, self._key, True))

    def issue(self, owner: str) -> Certificates:
        """Return a certificate of an owner's, good for 127.0.0.1."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, owner)])
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (self.folder / f"{owner}.key").write_bytes(key.private_bytes(*form))
        self._write(f"{owner}.pem", self._signed(name, key, False))
        files = (self.folder / file for file in (f"{owner}.pem", f"{owner}.key", "authority.pem"))
        return Certificates(*(str(file) for file in files))

    def _write(self, file: str, certificate: x509.Certificate) -> None:
        (self.folder / file).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _signed(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        builder = x509.CertificateBuilder(self._name, name, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(1))
        builder = builder.add_extension(x509.BasicConstraints(authority, None), True).add_extension(address, False)
        return builder.sign(self._key, hashes.SHA256())


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Certificates]:
    """Certificates of the hospital's authority."""
    authority = Authority(tmp_path_factory.mktemp("pki") / "hospital")
    return {owner: authority.issue(owner) for owner in ("node", "caller", "archive")}


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A certificate of an authority that nobody knows."""
    return Authority(tmp_path_factory.mktemp("pki") / "elsewhere").issue("stranger")


@pytest.fixture
def port(queue: ImageQueue, make_limits: Any, own: Mapping[str, Certificates]) -> Iterator[int]:
    """The port of a receiver that asks for certificates."""
    limits = make_limits(per_address=2, request_seconds=60)
    receiver = Receiver(queue, "127.0.0.1", 0, "NODE", [], ["MRImageStorage"], [], limits, own["node"])
    with receiver:
        yield receiver.port


@pytest.fixture
def dcmtk(port: int) -> Callable[..., bool]:
    """Run a command of dcmtk's against the receiver, and say whether it got what it wanted."""

    def run(command: str, *arguments: str) -> bool:
        found = shutil.which(command, path=PATHS)
        if found is None:
            pytest.skip(f"no {command}: install the Debian package dcmtk")
        named = [found, "-aec", "NODE", "-to", "5", "-ta", "5", *arguments[:-1], "127.0.0.1", str(port), arguments[-1]]
        return subprocess.run([part for part in named if part], capture_output=True, timeout=60).returncode == 0

    return run


def shown(tls: Certificates) -> list[str]:
    """Return dcmtk's options for a certificate."""
    return ["+tls", tls.private_key, tls.certificate, "+cf", tls.authorities]


def content(dataset: Any) -> bytes:
    with BytesIO() as file:
        dataset.save_as(file, enforce_file_format=True)
        return file.getvalue()


def test_an_image_comes_in_over_tls(dcmtk: Any, own: Any, scans: Any, queue: ImageQueue, tmp_path: Path) -> None:
    image = scans.make_dicom(GREY)
    (tmp_path / "image.dcm").write_bytes(content(image))
    assert dcmtk("storescu", *shown(own["caller"]), str(tmp_path / "image.dcm"))
    assert queue.state(image.SOPInstanceUID) is State.RECEIVED


def test_who_shows_no_certificate_of_ours_is_not_let_in(dcmtk: Any, own: Any, foreign: Certificates) -> None:
    trusting = replace(foreign, authorities=own["caller"].authorities)
    assert not dcmtk("echoscu", "")  # not encrypted
    assert not dcmtk("echoscu", "+tla", "+cf", own["caller"].authorities, "")  # encrypted, by nobody
    assert not dcmtk("echoscu", *shown(trusting), "")
    assert not dcmtk("echoscu", *shown(replace(own["caller"], authorities=foreign.authorities)), "")
    assert dcmtk("echoscu", *shown(own["caller"]), "")


def test_connections_that_never_agree_on_tls_keep_nobody_out(dcmtk: Any, own: Any, port: int) -> None:
    with ExitStack() as stack:
        for first in (b"", b"\x16\x03\x01\x02\x00"):
            for _ in range(10):
                stack.enter_context(socket.create_connection(("127.0.0.1", port))).sendall(first)
        assert dcmtk("echoscu", *shown(own["caller"]), "")


@pytest.fixture
def orthanc(make_orthanc: Callable[..., Any], own: Mapping[str, Certificates], port: int) -> Any:
    """An archive whose DICOM speaks TLS alone."""
    return make_orthanc(node=("NODE", port), tls=own["archive"])


@pytest.fixture
def web_url(orthanc: Any, own: Mapping[str, Certificates]) -> Iterator[str]:
    """Its DICOMweb behind a proxy that speaks TLS alone: the HTTPS of Debian's Orthanc itself crashes."""
    loop, context = asyncio.new_event_loop(), own["archive"].of_server()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while part := await reader.read(2**16):
                writer.write(part)
        writer.close()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind = await asyncio.open_connection("127.0.0.1", orthanc.web_port)
        await asyncio.gather(carry(reader, behind[1]), carry(behind[0], writer))

    server = loop.run_until_complete(asyncio.start_server(relay, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/dicom-web"
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def test_results_go_out_over_tls_and_images_come_from_the_archive(
    orthanc: Any, web_url: str, own: Any, scans: Any, queue: ImageQueue
) -> None:
    result, other = scans.make_dicom(GREY), scans.make_dicom(GREY)
    StoreDestination("127.0.0.1", orthanc.port, "ORTHANC", "NODE", 10.0, own["node"]).send([content(result)])
    client = make_client(web_url, {}, 10.0, 10**6, own["node"])
    WebDestination(client).send([content(other)])
    assert {found["00080018"]["Value"][0] for found in client.search_for_instances()} == {
        result.SOPInstanceUID,
        other.SOPInstanceUID,
    }
    for name in orthanc.ask("/instances"):
        orthanc.ask("/modalities/node/store", name.encode())
    assert queue.counts()[State.RECEIVED] == 2


def test_an_archive_is_not_given_anything_unless_both_sides_know_each_other(
    orthanc: Any, web_url: str, own: Any, foreign: Certificates, scans: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", own["node"].authorities)  # must not take the place of those given
    result = content(scans.make_dicom(GREY))
    unknown = (
        None,
        replace(foreign, authorities=own["node"].authorities),  # the archive does not know us
        replace(own["node"], authorities=foreign.authorities),  # we do not know the archive
    )
    for tls in unknown:
        with pytest.raises(Unreachable, match="ORTHANC on 127.0.0.1, .* does not answer"):
            StoreDestination("127.0.0.1", orthanc.port, "ORTHANC", "NODE", 3.0, tls).send([result])
        with pytest.raises(Unreachable, match="does not answer"):
            WebDestination(make_client(web_url, {}, 3.0, 10**6, tls)).send([result])
    with pytest.raises(Unreachable):  # a certificate of ours, for another name
        StoreDestination("127.0.0.2", orthanc.port, "ORTHANC", "NODE", 3.0, own["node"]).send([result])
    assert orthanc.count() == 0


def test_a_certificate_alone_lets_a_node_listen_everywhere(queue: ImageQueue, make_limits: Any, own: Any) -> None:
    given: Any = (queue, "0.0.0.0", 0, "NODE", [], ["MRImageStorage"], [], make_limits())
    with Receiver(*given, own["node"]) as receiver:
        assert receiver.port
    with pytest.raises(UserError, match="anybody could send to 0.0.0.0"):
        Receiver(*given)


def test_certificates_that_are_not_whole_are_named(own: Any, tmp_path: Path) -> None:
    node = own["node"]
    assert certificates(None, None, None) is None
    assert certificates(node.certificate, node.private_key, node.authorities) == node
    with pytest.raises(UserError, match=r"give all three \(keys 'tls_certificate', 'tls_key', 'tls_authorities'\)"):
        certificates(node.certificate, node.private_key, None)
    (tmp_path / "text").write_text("text")
    broken = [
        {"certificate": str(tmp_path / "missing")},
        {"private_key": str(tmp_path / "text")},
        {"private_key": own["caller"].private_key},
        {"authorities": str(tmp_path / "text")},
    ]
    for change in broken:
        with pytest.raises(UserError, match="the certificates of TLS cannot be read .*: give PEM files"):
            certificates(*vars(replace(node, **change)).values())
