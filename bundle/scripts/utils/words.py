"""How counts are said."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """Say how many there are: ``1 image``, ``2 images``, ``1,200 classes``.

    Args:
        number: of them.
        noun: what one is called.
        plural: what several are called, where an s is not enough.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def duration(seconds: float) -> str:
    """Say how long something takes: ``40 s``, ``4 min``, ``2 h 10 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
