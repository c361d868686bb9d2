"""What this node is on a DICOM network, whether it calls or is called."""

from __future__ import annotations

from collections.abc import Sequence

import pydicom.uid
from pydicom.config import IGNORE
from pydicom.uid import UID
from pynetdicom import AE, _config

from scripts.utils.errors import UserError

_config.LOG_HANDLER_LEVEL = "none"  # pynetdicom would put every message into words


def make_entity(ae_title: str, seconds: float) -> AE:
    """Make an application entity.

    Args:
        ae_title: its title, up to 16 characters.
        seconds: that connecting, an answer, or silence may take.

    Raises:
        UserError: for a title that is none.
    """
    try:
        entity = AE(ae_title)
    except (TypeError, ValueError) as error:
        raise UserError(f"'{ae_title}' is no AE title ({error}): give up to 16 letters (key 'ae_title')") from error
    entity.connection_timeout = entity.network_timeout = entity.dimse_timeout = entity.acse_timeout = seconds
    return entity


def find_uid(name: str) -> UID:
    """Return a UID by its number, or by pydicom's name for it, such as ``CTImageStorage``.

    Raises:
        UserError: there is none of this name.
    """
    found = UID(name, validation_mode=IGNORE) if name[:1].isdigit() else getattr(pydicom.uid, name, None)
    if not isinstance(found, UID) or not found.is_valid:
        raise UserError(
            f"unknown UID '{name}': give a name such as CTImageStorage, or a number (keys 'sop_classes', "
            "'transfer_syntaxes')"
        )
    return found


def find_uids(names: str | Sequence[str]) -> list[UID]:
    """Return the UIDs of names or numbers, or of a single one.

    Raises:
        UserError: as `find_uid`.
    """
    return [find_uid(name) for name in listed(names)]


def listed(texts: str | Sequence[str]) -> list[str]:
    """Return texts as a list; a single one need not be in one (``--callers CT1``)."""
    return [texts] if isinstance(texts, str) else list(texts)
