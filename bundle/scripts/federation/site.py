"""Who a site is: a key that signs what it gives, a key that masks it, and a card with the public half of both."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from scripts.utils.errors import UserError
from scripts.utils.files import secret_key, write_atomically
from scripts.utils.json_files import TEXT, read_json
from scripts.utils.signing import SigningKey, has_signed

CARD, KEY, MASK_KEY, ROUNDS = ".site.json", ".key", ".mask.key", ".rounds.json"
NAME = re.compile(r"[A-Za-z0-9][\w-]{0,63}")
ADVICE = "ask the site for its card again"
SCHEMA = {
    "type": "object",
    "required": ["site", "signs", "masks", "signature"],
    "properties": {name: TEXT for name in ("site", "signs", "masks", "signature")},
    "additionalProperties": False,
}
"""What a card holds, as a JSON schema."""


@dataclass(frozen=True)
class Card:
    """What others know of a site.

    Attributes:
        site: its name.
        signs: public half of its Ed25519 key, base64.
        masks: public half of its X25519 key, base64.
    """

    site: str
    signs: str
    masks: str

    @property
    def text(self) -> str:
        """What its signature is of."""
        return json.dumps({"site": self.site, "signs": self.signs, "masks": self.masks})

    @property
    def fingerprint(self) -> str:
        """What two people compare on the telephone."""
        digest = hashlib.sha256(self.text.encode()).hexdigest()[:24]
        return "-".join(re.findall("....", digest))

    def has_signed(self, text: str, signature: str) -> bool:
        """Say whether a signature of a text is this site's."""
        return has_signed(self.signs, text, signature)

    @classmethod
    def read(cls, path: str | Path) -> Card:
        """Read a card.

        Raises:
            UserError: when it cannot be read, or its two keys are not of one site.
        """
        record: dict[str, Any] = read_json(path, SCHEMA, ADVICE)
        card = cls(record["site"], record["signs"], record["masks"])
        if not NAME.fullmatch(card.site) or not card.has_signed(card.text, record["signature"]):
            raise UserError(f"{path} was changed, its signature does not fit: {ADVICE}")
        return card


@dataclass(frozen=True)
class Site:
    """A site with its private keys, which lie beside its card.

    Attributes:
        folder: holds ``NAME.site.json``, ``NAME.key`` and ``NAME.mask.key``.
        name: of letters, digits, ``_`` and ``-``.
    """

    folder: Path
    name: str

    @classmethod
    def make(cls, name: str, folder: Path) -> Site:
        """Make the keys and the card of a new site.

        Raises:
            UserError: for a name that no file can have, or when there is such a site already.
        """
        if not NAME.fullmatch(name):
            raise UserError(f"site name {name!r} has other signs than letters, digits, _ and -: give another one")
        site = cls(folder, name)
        site.key.make()
        secret_key(site._beside(MASK_KEY))
        card = Card(name, site.key.public, _text(site._mask_key.public_key()))
        record = {**json.loads(card.text), "signature": site.key.sign(card.text)}
        write_atomically(site._beside(CARD), f"{json.dumps(record, indent=4)}\n")
        return site

    @classmethod
    def open(cls, card: Path) -> Site:
        """Open the site whose card is given.

        Raises:
            UserError: when there is no such card.
        """
        return cls(card.parent, Card.read(card).site)

    @property
    def card(self) -> Card:
        """What others know of it."""
        return Card.read(self._beside(CARD))

    @property
    def key(self) -> SigningKey:
        """Signs what it gives."""
        use = f"site {self.name}: it lies where the site was made (dynammo join)"
        return SigningKey(self._beside(KEY), use)

    def shared_secret(self, other: Card) -> bytes:
        """Return 32 bytes that this site and another one know, and nobody else (X25519, RFC 7748)."""
        return self._mask_key.exchange(X25519PublicKey.from_public_bytes(base64.b64decode(other.masks)))

    def use_round(self, digest: str) -> None:
        """Write down that a round is masked; masked twice, the difference of two files would tell that of two sums.

        Raises:
            UserError: it was masked before.
        """
        path = self._beside(ROUNDS)
        used: list[str] = json.loads(path.read_text()) if path.is_file() else []
        if digest in used:
            raise UserError(
                f"site {self.name} has masked its sums in this round already, and a mask hides once: agree on a round "
                "of another name (key 'round' of its file)"
            )
        write_atomically(path, json.dumps([*used, digest]), 0o600)

    @property
    def _mask_key(self) -> X25519PrivateKey:
        path = self._beside(MASK_KEY)
        if not path.is_file():
            raise UserError(f"no key {path} of site {self.name}: it lies where the site was made (dynammo join)")
        return X25519PrivateKey.from_private_bytes(path.read_bytes())

    def _beside(self, suffix: str) -> Path:
        return self.folder / f"{self.name}{suffix}"


def cards_in(folder: Path) -> dict[str, Card]:
    """Return the cards in a folder by name of the site.

    Raises:
        UserError: for two of one name.
    """
    return by_name(Card.read(path) for path in sorted(folder.glob(f"*{CARD}")))


def by_name(cards: Iterable[Card]) -> dict[str, Card]:
    """Return cards by name of the site.

    Raises:
        UserError: for two of one name.
    """
    found: dict[str, Card] = {}
    for card in cards:
        if card.site in found:
            raise UserError(f"two cards are of site {card.site}: keep the one whose fingerprint the site confirms")
        found[card.site] = card
    return found


def _text(key: X25519PublicKey) -> str:
    return base64.b64encode(key.public_bytes_raw()).decode()
