"""What the service answers where it cannot do as asked: never 500, always a reason, never a word of the image's."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from scripts.imaging.decoding.reasons import EXPLANATIONS, ImageRefused, Reason
from scripts.utils.errors import UserError

_STATUS = {
    **dict.fromkeys((Reason.UNREADABLE, Reason.CORRUPT_HEADER, Reason.CORRUPT_PIXELS), 400),
    **dict.fromkeys((Reason.NON_FINITE, Reason.ZERO_SLOPE), 400),
    Reason.MISSING: 404,
    Reason.TOO_LARGE: 413,
    **dict.fromkeys((Reason.UNSUPPORTED_KIND, Reason.UNSUPPORTED_SOP_CLASS, Reason.UNSUPPORTED_TRANSFER_SYNTAX), 415),
}
_POLICY = 422  # the image can be read, and is refused all the same
_UNABLE = 503  # a disk that is full, a model that cannot be loaded


class Cause(StrEnum):
    """Why a person cannot have what they ask for: a code that stays, for which the page has words of each language."""

    SIGN_IN = "sign_in"
    WRONG_PASSWORD = "wrong_password"
    WAIT = "wait"
    ROLE = "role"
    OTHERS_CHANGE = "others_change"
    UNKNOWN = "unknown"
    CLASS_NAME = "class_name"
    AT_WORK = "at_work"
    NO_VERSION = "no_version"
    NEVER_SERVED = "never_served"
    NOTHING_NEW = "nothing_new"
    TOO_FEW = "too_few"
    RUN_AWAY = "run_away"
    DEPLOYED_ALONE = "deployed_alone"
    EPOCHS = "epochs"


class Problem(UserError):
    """What a caller asked for cannot be done.

    Args:
        status: of the answer, 4xx.
        message: one line for the caller.
        cause: the code of the reason, where a person may meet it; ``None``: only programs do.
        values: what the words of the reason name.
    """

    def __init__(self, status: int, message: str, cause: Cause | None = None, **values: str | int) -> None:
        super().__init__(message)
        self.status = status
        self.cause = cause
        self.values = values


def unknown(kind: str, name: str = "") -> Problem:
    """Return what answers a name that is not known; names that we did not make are not repeated."""
    return Problem(404, f"no such {kind}{f': {name}' if name else ''}", Cause.UNKNOWN)


def answer_to(error: UserError) -> tuple[int, dict[str, Any]]:
    """Return status and content of the answer to a request that failed."""
    if isinstance(error, Problem):
        coded = {} if error.cause is None else {"reason": error.cause, "values": error.values}
        return error.status, {"detail": str(error), **coded}
    if isinstance(error, ImageRefused):  # its message names the file
        return _STATUS.get(error.reason, _POLICY), {
            "detail": f"the image is refused, {error.reason.value}: {EXPLANATIONS[error.reason]}",
            "reason": error.reason,
        }
    return _UNABLE, {"detail": str(error)}
