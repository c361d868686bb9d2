"""What a labelling service needs of a trained run: the version that it serves."""

from __future__ import annotations

from pathlib import Path

from scripts.errors import UserError
from scripts.versions.store import PROMOTED, VersionStore


def served_folder(store: VersionStore, run_dir: str | None = None) -> str:
    """Return the folder of the model that is served, a link that follows promotions.

    Args:
        store: of versions; where it serves none yet, the versions of a run are taken in and its last one is promoted.
        run_dir: that run's folder.

    Raises:
        UserError: nothing is served, and no run is given.
    """
    store.settle()
    if store.promoted() is None:
        if run_dir is None:
            raise UserError(f"{store.folder} serves no version yet: give a finished run's folder (key 'run_dir')")
        from scripts.commands.examine import add

        add(store, Path(run_dir))
        store.promote(store.versions()[-1].number)
    return str(store.folder / PROMOTED)
