"""A key that signs an audit log, or what a site contributes: Ed25519 (RFC 8032), in a file for its owner's eyes."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from scripts.utils.errors import UserError
from scripts.utils.files import cannot_write, write_atomically

PUBLIC = ".pub"
"""What the name of the public half ends with; who has it alone can check what is signed, and sign nothing."""
AUDIT_LOG = "the audit log: make it once (dynammo versions STORE key), or name it (--key, key 'audit_key')"


class SigningKey:
    """A key that signs, or checks.

    Args:
        path: the private half (PEM); the public one stands beside it.
        use: what it is for, and what to do where it is missing.
    """

    def __init__(self, path: Path, use: str = AUDIT_LOG) -> None:
        self.path = path
        self.use = use

    def make(self) -> None:
        """Make the key.

        Raises:
            UserError: there is one already, or the folder cannot be written.
        """
        if there := next((path for path in (self.path, self._public) if path.exists()), None):
            raise UserError(f"{there} is there already: what it has signed needs it; give another file")
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        for path, content, mode in ((self.path, private, 0o600), (self._public, public, 0o644)):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                    file.write(content)
            except FileExistsError:
                raise UserError(f"{path} is there already: what it has signed needs it; give another file") from None
            except OSError as error:
                raise cannot_write(path, error) from error

    def copy_to(self, other: SigningKey, private: bool) -> None:
        """Copy the public half beside another path, and the private one, for its owner's eyes, where it is asked for.

        Raises:
            UserError: a half cannot be read.
        """
        halves = [(self._public, other._public, 0o644)] + [(self.path, other.path, 0o600)] * private
        for own, copy, mode in halves:
            write_atomically(copy, self._read(own), mode)

    @property
    def exists(self) -> bool:
        """Whether a half of it is there."""
        return self.path.exists() or self._public.exists()

    def sign(self, text: str) -> str:
        """Return the signature of a text, in base64.

        Raises:
            UserError: the key cannot be read, or others can read it.
        """
        return base64.b64encode(self._private().sign(text.encode())).decode()

    def has_signed(self, text: str, signature: str) -> bool:
        """Say whether a signature is this key's, of a text.

        Raises:
            UserError: neither half of the key can be read.
        """
        return _verifies(self._verifier(), text, signature)

    @property
    def public(self) -> str:
        """The public half as text: its 32 bytes in base64.

        Raises:
            UserError: neither half of the key can be read.
        """
        return base64.b64encode(self._verifier().public_bytes_raw()).decode()

    @property
    def _public(self) -> Path:
        return self.path.with_name(self.path.name + PUBLIC)

    def _private(self) -> Ed25519PrivateKey:
        content = self._read(self.path)
        if stat.S_IMODE(self.path.stat().st_mode) & 0o077:
            raise UserError(
                f"others can read the key {self.path}: whoever has may have signed with it. Set its mode to 600"
            )
        try:
            key = serialization.load_pem_private_key(content, None)
        except (ValueError, TypeError) as error:
            raise UserError(f"{self.path} is no key: restore it from a copy") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise UserError(f"{self.path} is no Ed25519 key: restore it from a copy")
        return key

    def _verifier(self) -> Ed25519PublicKey:
        if self.path.is_file() or not self._public.is_file():
            return self._private().public_key()
        try:
            key = serialization.load_pem_public_key(self._read(self._public))
        except ValueError as error:
            raise UserError(f"{self._public} is no key: restore it from a copy") from error
        if not isinstance(key, Ed25519PublicKey):
            raise UserError(f"{self._public} is no Ed25519 key: restore it from a copy")
        return key

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            if path == self.path and self._public.is_file():
                raise UserError(
                    f"no key {path}, and {self._public} is there: put back a copy of it, without which nothing can be "
                    "signed; all can be checked"
                ) from None
            raise UserError(f"no key {path} for {self.use}") from None
        except OSError as error:
            raise UserError(f"cannot read the key {path}: {error.strerror}; run this as who owns it") from error


def has_signed(public: str, text: str, signature: str) -> bool:
    """Say whether a text was signed with the key whose public half is given as :attr:`SigningKey.public` gives it."""
    try:
        key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public, validate=True))
    except ValueError:
        return False
    return _verifies(key, text, signature)


def _verifies(key: Ed25519PublicKey, text: str, signature: str) -> bool:
    try:
        key.verify(base64.b64decode(signature, validate=True), text.encode())
    except (InvalidSignature, ValueError):
        return False
    return True
