"""Who may use the service: names, roles and passwords, in one small file."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from scripts.utils.errors import UserError
from scripts.utils.files import write_atomically
from scripts.utils.json_files import read_json

COST, BLOCK, LANES = 2**15, 8, 3
"""Of scrypt (RFC 7914): 32 MiB and about a quarter of a second for each password that is tried."""
MEMORY = 2**26
SHORTEST = 12
"""Characters of a password, at least."""
LONGEST_NAME = 64


class Role(StrEnum):
    """What a user may do; each role may do what those before it may."""

    READER = "reader"
    LABELLER = "labeller"
    ADMIN = "admin"

    def may_act_as(self, other: Role) -> bool:
        """Say whether it includes another role."""
        order = list(Role)
        return order.index(self) >= order.index(other)


SCHEMA = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "required": ["role"],
        "properties": {"role": {"enum": list(Role)}, "password": {"type": ["string", "null"]}},
    },
}


@dataclass(frozen=True)
class User:
    """Somebody who uses the service.

    Attributes:
        name: by which labels, promotions, deletions and the log call them.
        role: what they may do.
    """

    name: str
    role: Role


class Users:
    """A file of users (JSON, mode 0600). It is read anew each time, so that who is taken out is out at once.

    Args:
        path: the file; made with the first user.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def find(self, name: str) -> User | None:
        """Return a user, where there is one of this name."""
        entry = self._read().get(name)
        return None if entry is None else User(name, Role(entry["role"]))

    def all(self) -> list[User]:
        """Return all users, by name."""
        return [User(name, Role(entry["role"])) for name, entry in sorted(self._read().items())]

    def is_password(self, name: str, password: str) -> bool:
        """Say whether a password is a user's. It takes as long for a name that there is not."""
        kept = self._read().get(name, {}).get("password")
        return _matches(password, kept or _UNKNOWN) and bool(kept)

    def add(self, name: str, role: Role, password: str | None) -> None:
        """Add a user, or give one another role and password.

        Args:
            name: printable, no longer than 64 characters.
            role: what they may do.
            password: ``None``: a proxy that is trusted says who they are.

        Raises:
            UserError: a name or a password that is none, or the file cannot be written.
        """
        if not name.isprintable() or not name.strip() == name or not 0 < len(name) <= LONGEST_NAME:
            raise UserError(f"a user's name has 1 to {LONGEST_NAME} printable characters, and no space around it")
        if password is not None and len(password) < SHORTEST:
            raise UserError(f"the password is short: give one of {SHORTEST} characters or more")
        entry = {"role": role, "password": None if password is None else hashed(password)}
        self._write({**(self._read() if self.path.exists() else {}), name: entry})

    def remove(self, name: str) -> None:
        """Take a user out.

        Raises:
            UserError: there is none of this name.
        """
        users = self._read()
        if name not in users:
            raise UserError(f"{self.path} has no user of this name: choose among {', '.join(users) or 'none'}")
        self._write({other: entry for other, entry in users.items() if other != name})

    def _read(self) -> dict[str, Any]:
        return read_json(self.path, SCHEMA, "restore it from a copy")

    def _write(self, users: dict[str, Any]) -> None:
        write_atomically(self.path, json.dumps(users, indent=1) + "\n", 0o600)


def hashed(password: str) -> str:
    """Return what is kept of a password: how it was hashed, a salt of its own, and the hash."""
    salt = secrets.token_bytes(16)
    return "$".join(["scrypt", *map(str, (COST, BLOCK, LANES)), _text(salt), _text(_scrypt(password, salt))])


def _matches(password: str, kept: str) -> bool:
    _, cost, block, lanes, salt, expected = kept.split("$")
    found = _scrypt(password, base64.b64decode(salt), int(cost), int(block), int(lanes))
    return hmac.compare_digest(found, base64.b64decode(expected))


def _scrypt(password: str, salt: bytes, cost: int = COST, block: int = BLOCK, lanes: int = LANES) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=cost, r=block, p=lanes, maxmem=MEMORY)


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


_UNKNOWN = "$".join(["scrypt", *map(str, (COST, BLOCK, LANES)), _text(bytes(16)), _text(bytes(64))])
"""What the password of a name that there is not is compared with; nothing hashes to it."""
