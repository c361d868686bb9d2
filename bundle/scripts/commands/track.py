"""Let ``--tracking mlflow`` of MONAI keep a run as one entry, rather than one a stage."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from scripts.utils.errors import UserError
from scripts.utils.extras import of_extra

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

OWN = "scripts.learning.handlers.TrackingHandler"
MONAI = "MLFlowHandler"
KEPT = ("tracking_uri", "experiment_name", "run_name")
SERVER = "MLFLOW_TRACKING_URI"
"""Of the environment: where the server is, for who gives no ``--tracking_uri``."""
OF_TRACKING = (*KEPT, "save_execute_config", "is_not_rank0")
"""Keys that MONAI adds: how a run is looked on is no part of what it was."""


def track(parser: ConfigParser) -> None:
    """Put the bundle's handler in the place of the one that MONAI has put into the config, if it has.

    Raises:
        UserError: when MLflow's client is not installed.
    """
    handlers: list[Any] = parser.get("train#handlers", [])
    if not any(map(_is_monais, handlers)):
        return
    with of_extra("mlflow", "--tracking mlflow needs MLflow's client"):
        import mlflow  # noqa: F401
    config = dict(parser.get())
    given = {key: config[key] for key in KEPT}
    if "://" not in str(given["tracking_uri"]):
        given["tracking_uri"] = os.environ.get(SERVER)
    if not given["tracking_uri"]:
        raise UserError(
            "--tracking mlflow needs to know where the server is: give --tracking_uri http://HOST:PORT, or set "
            f"{SERVER} in the environment"
        )
    evaluator = {**config["validate"]["evaluator"]}
    if evaluator.get("val_handlers") and any(_is_monais(one) for one in evaluator["val_handlers"]):
        evaluator["val_handlers"] = [one for one in evaluator["val_handlers"] if not _is_monais(one)]
        if not evaluator["val_handlers"]:
            del evaluator["val_handlers"]
    own = {"_target_": OWN, "output_dir": "@output_dir", "record": "@save#record", **given}
    listed = [own if _is_monais(one) else one for one in handlers]
    kept = {key: value for key, value in config.items() if key not in OF_TRACKING}
    train, validate = {**config["train"], "handlers": listed}, {**config["validate"], "evaluator": evaluator}
    parser.set({**kept, "train": train, "validate": validate})
    parser.parse(reset=True)


def _is_monais(handler: Any) -> bool:
    return isinstance(handler, dict) and handler.get("_target_") == MONAI
