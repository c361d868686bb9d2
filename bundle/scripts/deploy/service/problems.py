"""What the service answers where it cannot do as asked: never 500, always a reason, never a word of the image's."""

from __future__ import annotations

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


class Problem(UserError):
    """What a caller asked for cannot be done.

    Args:
        status: of the answer, 4xx.
        message: one line for the caller.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def unknown(kind: str, name: str = "") -> Problem:
    """Return what answers a name that is not known; names that we did not make are not repeated."""
    return Problem(404, f"no such {kind}{f': {name}' if name else ''}")


def answer_to(error: UserError) -> tuple[int, dict[str, str]]:
    """Return status and content of the answer to a request that failed."""
    if isinstance(error, Problem):
        return error.status, {"detail": str(error)}
    if isinstance(error, ImageRefused):  # its message names the file
        return _STATUS.get(error.reason, _POLICY), {
            "detail": f"the image is refused, {error.reason.value}: {EXPLANATIONS[error.reason]}",
            "reason": error.reason,
        }
    return _UNABLE, {"detail": str(error)}
