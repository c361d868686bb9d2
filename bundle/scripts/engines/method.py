"""A method is a config file; its name alone changes nothing."""

from __future__ import annotations

from pathlib import Path

from scripts.errors import UserError


def check_method(method: str, configured: str, folder: str) -> None:
    """Refuse a method's name without the method's config: the run would train another one under that name.

    Args:
        method: the name given (key ``method``).
        configured: the method that the config files describe (key ``configured_method``).
        folder: the bundle's method configs.

    Raises:
        UserError: says which methods there are and how to choose one.
    """
    if method == configured:
        return
    known = sorted(path.stem for path in Path(folder).glob("*.json"))
    if method in known:
        raise UserError(
            f"method '{method}' is a config file: add 'configs/methods/{method}.json' to --config_file (it describes "
            f"'{configured}' now)"
        )
    raise UserError(
        f"unknown method '{method}': add one of {', '.join(known)} from configs/methods to --config_file, or a file of "
        "your own that sets 'method' and 'configured_method'"
    )
