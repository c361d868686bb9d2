"""Masks that cancel: each pair of sites hides its sums under numbers that one adds and the other takes away.

Source: Bonawitz et al., Practical secure aggregation for privacy-preserving machine learning (CCS 2017), section 4,
masking with one-time pads. A site that drops out leaves its masks in the others' files: it is named, and a round
without it is begun. Secret sharing, which the source recovers from it with, is left out: whoever adds could then unmask
a file that comes late.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from scripts.federation.fixed_point import MOST_SITES, Integers
from scripts.federation.site import Card, Site, by_name
from scripts.utils.errors import UserError
from scripts.utils.json_files import TEXT, TEXTS

LEAST_SITES = 3
"""Of two, each would know the other's sums once it has subtracted its own."""
SCHEMA = {
    "type": "object",
    "required": ["round", "sites", "classes"],
    "additionalProperties": False,
    "properties": {
        "round": {**TEXT, "minLength": 1},
        "sites": {**TEXTS, "minItems": LEAST_SITES, "maxItems": MOST_SITES, "uniqueItems": True},
        "classes": {**TEXTS, "minItems": 1, "uniqueItems": True},
    },
}
"""What the file of a round holds, as a JSON schema."""


@dataclass(frozen=True)
class Round:
    """What the sites have agreed on before they mask.

    Attributes:
        name: no other round has it.
        cards: of all sites that take part, by name.
        classes: of all of them, in this order; a site without images of one gives zeros.
    """

    name: str
    cards: Mapping[str, Card]
    classes: Sequence[str]

    @classmethod
    def read(cls, path: Path) -> Round:
        """Read a YAML file; the cards' paths in it are relative to its folder.

        Raises:
            UserError: when it, or a card, is not as it should be.
        """
        try:
            record: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UserError(f"{path} cannot be read as YAML ({error}): give the file of a round") from error
        if problem := best_match(Draft202012Validator(SCHEMA).iter_errors(record)):
            raise UserError(f"{path} is no file of a round ({problem.message}): see docs/hospital/federation.md")
        cards = by_name(Card.read(path.parent / name) for name in record["sites"])
        return cls(record["round"], cards, record["classes"])

    @property
    def digest(self) -> str:
        """Hash of all that was agreed on: of another list of sites, classes or keys it is another round."""
        agreed = [self.name, sorted(card.text for card in self.cards.values()), list(self.classes)]
        return hashlib.sha256(json.dumps(agreed).encode()).hexdigest()

    def record(self) -> dict[str, Any]:
        """Return what a contribution says of it."""
        return {"name": self.name, "digest": self.digest, "sites": sorted(self.cards)}

    def mask(self, site: Site, part: str, length: int) -> Integers:
        """Return what a site adds, modulo 2^64, to its numbers called ``part``; over all sites it sums to 0.

        Raises:
            UserError: the site is not of the round, or has another card in it.
        """
        if self.cards.get(site.name) != site.card:
            raise UserError(f"the round has not the card of site {site.name}: list it (key 'sites' of its file)")
        total = np.zeros(length, np.uint64)
        for other in self.cards.values():
            if other.site != site.name:
                pad = self._pad(site.shared_secret(other), sorted((site.name, other.site)), part, length)
                total = total + pad if site.name < other.site else total - pad
        return total.view(np.int64)

    def _pad(self, secret: bytes, pair: Sequence[str], part: str, length: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
        info = json.dumps([self.digest, *pair, part]).encode()
        key = HKDF(SHA256(), 32, None, info).derive(secret)
        stream = Cipher(ChaCha20(key, bytes(16)), None).encryptor()  # a key is used once
        return np.frombuffer(stream.update(bytes(8 * length)), "<u8").astype(np.uint64)


def check_complete(rounds: Mapping[str, Any], given: Sequence[str]) -> None:
    """Refuse a round that lacks a site.

    Args:
        rounds: what the contributions say of it; see :meth:`Round.record`.
        given: the sites whose contributions are there.

    Raises:
        UserError: names those that are missing.
    """
    missing = sorted(set(rounds["sites"]) - set(given))
    if missing:
        raise UserError(
            f"round {rounds['name']} lacks {', '.join(missing)}, and only together do its masks cancel: wait for "
            "these files, or agree on a new round without them"
        )
