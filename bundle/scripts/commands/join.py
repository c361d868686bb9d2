"""Make the keys of a site, and the card that others know it by."""

from __future__ import annotations

from pathlib import Path

from scripts.federation.site import CARD, Site


def join(name: str, folder: Path) -> str:
    """Make them.

    Args:
        name: of the site.
        folder: for the keys, which stay there, and the card.

    Returns:
        What was done, and the fingerprint.

    Raises:
        UserError: for a name that cannot be, or a site that is there already.
    """
    site = Site.make(name, folder)
    return (
        f"{folder / (name + CARD)} is the card of site {name}: send it to who adds the sums, and say its fingerprint "
        f"{site.card.fingerprint} by another way. The keys beside it stay here: keep a safe copy."
    )
