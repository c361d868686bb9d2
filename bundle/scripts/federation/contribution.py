"""What a site gives: one signed file with sums and counts, and no image, path or patient's name."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from scripts.federation.fixed_point import Integers, to_fixed, triangle, width_of
from scripts.federation.masks import Round
from scripts.federation.noise import Noise
from scripts.federation.site import NAME, Card, Site
from scripts.imaging.image_spec import SCHEMA as IMAGE
from scripts.model.networks.closed_form import ridge
from scripts.utils.errors import UserError
from scripts.utils.files import write_atomically
from scripts.utils.json_files import TEXT, TEXTS, check_json

FORMAT = 1
PLAIN, MASKED, NOISY = "plain", "masked", "noisy"
UNSIGNED = "0" * 88
_SIGNATURE = re.compile(rb'"signature":"([0-9A-Za-z+/=]{88})"')
TOLERANCE = 1e-6
"""Numbers are kept as float32 where the head solved from them differs by less, as a share of its largest weight."""
ERRORS = "errors"
ADVICE = "let the site send it again"
LARGEST_HEADER = 10**7
_DIGEST = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_COUNT = {"type": ["integer", "null"], "minimum": 0}
_CLASS = {
    "type": "object",
    "required": ["name", "code", "images"],
    "properties": {
        "name": {**TEXT, "minLength": 1},
        "code": {"type": ["array", "null"], "items": TEXT},
        "images": _COUNT,
    },
    "additionalProperties": False,
}
_IDENTITY = {
    "type": "object",
    "required": ["network", "image", "views", "base", "features"],
    "properties": {
        "network": {"type": "object", "required": ["backbone", "head", "adapter", "sites", "levels", "seed"]},
        "image": IMAGE,
        "views": {"type": "array", "items": {"type": "array"}},
        "base": _DIGEST,
        "features": _DIGEST,
    },
}
SCHEMA = {
    "type": "object",
    "required": ["format", "site", "made", "kind", "identity", "classes", "candidates", "method", "round", "noise"],
    "properties": {
        "format": {"const": FORMAT},
        "site": {"type": "string", "pattern": f"^{NAME.pattern}$"},
        "made": TEXT,
        "kind": {"enum": [PLAIN, MASKED, NOISY]},
        "identity": _IDENTITY,
        "classes": {"type": "array", "minItems": 1, "items": _CLASS},
        "candidates": {"type": "array", "items": {"type": "number", "minimum": 0}},
        "method": TEXT,
        "round": {"type": ["object", "null"], "required": ["name", "digest", "sites"], "properties": {"sites": TEXTS}},
        "noise": {"type": ["object", "null"]},
    },
    "additionalProperties": False,
}
"""What a file says of itself, as a JSON schema; further keys are refused."""


@dataclass(frozen=True)
class Identity:
    """Which features sums are of: those of two sites add only where this is the same.

    Attributes:
        network: see :func:`scripts.federation.network.network_record`.
        image: how an image is seen.
        views: of an image that are summed.
        base: hash of the backbone that adapters are added to.
        features: hash of all below the head, adapters included.
    """

    network: Mapping[str, Any]
    image: Mapping[str, Any]
    views: Sequence[Sequence[int]]
    base: str
    features: str


@dataclass(frozen=True)
class ClassSums:
    """The sums of a class.

    Attributes:
        name: as the site calls it.
        images: how many there are.
        second: unweighted sum of x'x over the views of the images, [D, D]; x ends with 1, so its last row sums x.
        code: scheme, code and meaning, where it has a public one.
    """

    name: str
    images: int
    second: Tensor
    code: Sequence[str] | None = None


@dataclass(frozen=True)
class Contribution:
    """A file that was read, and whose signature is the site's.

    Attributes:
        path: of the file.
        sha256: of its bytes.
        header: what it says of itself; see :data:`SCHEMA`.
    """

    path: Path
    sha256: str
    header: Mapping[str, Any] = field(repr=False)

    @property
    def site(self) -> str:
        """Who gives it."""
        return self.header["site"]

    @property
    def kind(self) -> str:
        """:data:`PLAIN`, :data:`MASKED` or :data:`NOISY`."""
        return self.header["kind"]

    @property
    def identity(self) -> Identity:
        """Which features its sums are of."""
        return Identity(**self.header["identity"])

    @property
    def classes(self) -> list[dict[str, Any]]:
        """Name, code and number of images (``None`` where it is masked or noisy) of each class."""
        return self.header["classes"]

    def numbers(self, part: str) -> Integers:
        """Return a part in fixed point: the upper half of a class's sum (``class.0``, ...), or the errors.

        Raises:
            UserError: when there is no such part, or it is not of numbers.
        """
        found = self._part(part)
        return found if found.dtype == np.int64 else to_fixed(found)

    def width(self) -> int:
        """Return D."""
        return width_of(len(self._part("class.0")))

    def adapters(self) -> dict[str, Tensor]:
        """Return what a way of merging reads of the site's adapters; nothing where it has tuned none."""
        with safe_open(self.path, "pt") as file:
            names = [name for name in file.keys() if name.startswith("adapter.")]  # noqa: SIM118
            return {name.partition(".")[2]: file.get_tensor(name) for name in names}

    def record(self) -> dict[str, Any]:
        """Return what the log of a version says of it."""
        said = {key: self.header[key] for key in ("site", "made", "kind", "classes", "round", "noise")}
        return {**said, "sha256": self.sha256}

    def _part(self, part: str) -> NDArray[Any]:
        try:
            with safe_open(self.path, "np") as file:
                found = file.get_tensor(part)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{self.path} has no {part}: {ADVICE}") from error
        if found.ndim != 1 or found.dtype not in (np.int64, np.float32):
            raise UserError(f"{part} of {self.path} is no half of a matrix: {ADVICE}")
        return found


def write_contribution(
    path: Path,
    site: Site,
    identity: Identity,
    classes: Sequence[ClassSums],
    method: str,
    errors: Mapping[float, float] | None = None,
    adapters: Mapping[str, Tensor] | None = None,
    hidden: Round | Noise | None = None,
    tolerance: float = TOLERANCE,
) -> None:
    """Write a contribution, signed.

    Args:
        path: the file.
        site: who gives it.
        identity: which features the sums are of.
        classes: the sums of each; of a round, those of its classes, in its order.
        method: how the site has learnt.
        errors: of each shrinkage on images left out; see :meth:`scripts.learning.features.FeatureSums.choose`.
        adapters: what merging reads of them.
        hidden: a round masks the sums, noise is in them already; ``None``: they leave as they are.
        tolerance: see :data:`TOLERANCE`; 0: never.

    Raises:
        UserError: when sums would leave as they are that are of fewer images than features, or the file cannot be
            written.
    """
    kind = MASKED if isinstance(hidden, Round) else PLAIN if hidden is None else NOISY
    if kind == PLAIN:
        _refuse_few(classes)
    elif adapters:
        raise UserError(
            "tuned adapters are not hidden by masks or noise: learn with a frozen backbone (frozen+...), or let the "
            "sites' adapters be averaged first (--adapters)"
        )
    said = errors or {}
    parts = {f"class.{number}": triangle(own.second) for number, own in enumerate(classes)}
    parts |= {ERRORS: np.array([said[key] for key in sorted(said)])} if kind != NOISY and said else {}
    tensors: dict[str, NDArray[Any]] = _packed(parts, classes, sorted(said), tolerance if kind == PLAIN else 0)
    if isinstance(hidden, Round):
        tensors = {part: own + hidden.mask(site, part, len(own)) for part, own in tensors.items()}
        site.use_round(hidden.digest)
    for name, tensor in (adapters or {}).items():
        tensors[f"adapter.{name}"] = tensor.contiguous().numpy()
    header = {
        "format": FORMAT,
        "site": site.name,
        "made": datetime.now(UTC).isoformat(timespec="microseconds"),
        "kind": kind,
        "identity": asdict(identity),
        "classes": [
            {"name": own.name, "code": own.code, "images": own.images if kind == PLAIN else None} for own in classes
        ],
        "candidates": sorted(said) if ERRORS in parts else [],
        "method": method,
        "round": hidden.record() if isinstance(hidden, Round) else None,
        "noise": hidden.record() if isinstance(hidden, Noise) else None,
    }
    unsigned = save(tensors, {"contribution": json.dumps(header), "signature": UNSIGNED})
    signature = site.key.sign(hashlib.sha256(unsigned).hexdigest())
    before, after = _around_signature(unsigned[: _header_end(unsigned[:8])], path)
    write_atomically(path, b"".join([before, signature.encode(), after, unsigned[len(before) + len(after) + 88 :]]))


def read_contribution(path: Path, card: Card | None = None) -> Contribution:
    """Read a contribution, and check that every byte of it is as a site signed it.

    Args:
        path: the file.
        card: of the site that it should be of; ``None``: its signature is not checked yet, nor may it be used.

    Raises:
        UserError: when it is no such file, is of another site, or was changed.
    """
    try:
        with path.open("rb") as file:
            first = file.read(8)
            head = first + file.read(_header_end(first) - 8)
            before, after = _around_signature(head, path)
            unsigned, whole = hashlib.sha256(before + UNSIGNED.encode() + after), hashlib.sha256(head)
            for block in iter(lambda: file.read(2**20), b""):
                unsigned.update(block)
                whole.update(block)
        with safe_open(path, "np") as opened:
            metadata = opened.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is no contribution ({str(error).splitlines()[0]}): {ADVICE}") from error
    header = check_json(metadata.get("contribution", "").encode(), SCHEMA, path, ADVICE)
    if card is not None:
        if card.site != header["site"]:
            raise UserError(f"{path} is of site {header['site']}, not of {card.site}: {ADVICE}")
        if not card.has_signed(unsigned.hexdigest(), metadata.get("signature", "")):
            raise UserError(f"{path} is not as site {card.site} signed it, nothing of it is used: {ADVICE}")
    return Contribution(path, whole.hexdigest(), header)


def _header_end(first: bytes) -> int:
    """Return where the tensors begin in a file whose first 8 bytes are given."""
    return 8 + min(int.from_bytes(first, "little"), LARGEST_HEADER)


def _around_signature(head: bytes, path: Path) -> tuple[bytes, bytes]:
    found = list(_SIGNATURE.finditer(head))
    if len(found) != 1:
        raise UserError(f"{path} is no contribution, it has no signature: {ADVICE}")
    return head[: found[0].start(1)], head[found[0].end(1) :]


def _refuse_few(classes: Sequence[ClassSums]) -> None:
    few = [own for own in classes if own.images < len(own.second) - 1]
    if few:
        listed = ", ".join(f"{own.name} has {own.images}" for own in few)
        raise UserError(
            f"sums of fewer images than features ({len(few[0].second) - 1}) tell single images: {listed}. Mask them "
            "with other sites (--round), add noise (--epsilon), or leave these classes out (--leave_out)"
        )


def _packed(
    parts: Mapping[str, NDArray[np.float64]],
    classes: Sequence[ClassSums],
    candidates: Sequence[float],
    tolerance: float,
) -> dict[str, NDArray[Any]]:
    """Return the numbers as float32 where that changes the head by less than a share, else in fixed point."""
    narrow: dict[str, NDArray[Any]] = {part: own.astype(np.float32) for part, own in parts.items()}
    if tolerance > 0 and _change(classes, min(candidates, default=TOLERANCE)) < tolerance:
        return narrow
    return {part: to_fixed(own) for part, own in parts.items()}


def _change(classes: Sequence[ClassSums], shrinkage: float) -> float:
    """Return how much the head changes that is solved from these sums alone, when they are rounded to float32."""
    width = len(classes[0].second)
    exact, rounded = (torch.zeros(width, width, dtype=torch.double) for _ in range(2))
    firsts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for own in classes:
        weight = 1 / own.second[-1, -1].clamp(min=1)
        for total, rows, second in zip(
            (exact, rounded), firsts, (own.second, own.second.float().double()), strict=True
        ):
            total += weight * second
            rows.append(weight * second[-1])
    heads = [ridge(total, torch.stack(rows), shrinkage) for total, rows in zip((exact, rounded), firsts, strict=True)]
    return float((heads[1] - heads[0]).abs().max() / heads[0].abs().max())
