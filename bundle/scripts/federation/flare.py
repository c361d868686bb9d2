"""The same by NVFlare: a job of one round that asks each site for its contribution. Extra [nvflare].

The job carries this file alone. At a site it runs the bundle that is installed there (``dynammo contribute``) with what
the site itself has written down; of what the server sends nothing is read. At the server it keeps the files that come,
for ``dynammo federate``. It imports nothing of the bundle, which need not be on NVFlare's path.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.aggregators.model_aggregator import ModelAggregator
from nvflare.app_common.np.constants import NPConstants
from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe

SETTINGS = "DYNAMMO_SITE"
"""Names, in the environment of a site, its file: ``{"run": ..., "site": CARD, "words": [...]}``; ``{site}`` in the name
stands for the client's name."""
PART = "contribution"


class Collector(ModelAggregator):
    """Keeps what sites send; nothing is averaged.

    Args:
        folder: for the files, of the server.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = folder
        self.received: list[str] = []

    def accept_model(self, model: FLModel) -> None:
        """Write a contribution down; whose it is, and whether it is whole, ``dynammo federate`` checks."""
        content = np.asarray(model.params[PART]).astype(np.uint8).tobytes()
        target = Path(self.folder) / f"{len(self.received):04d}.safetensors"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        self.received.append(target.name)

    def aggregate_model(self) -> FLModel:
        """Return how many there are: nothing of them goes back to the sites."""
        return FLModel(params={NPConstants.NUMPY_KEY: np.array([len(self.received)])})

    def reset_stats(self) -> None:
        """Start a round."""
        self.received = []


def recipe(folder: Path, sites: int, name: str = "dynammo") -> NumpyFedAvgRecipe:
    """Return the job: one round, to be run in any of NVFlare's environments (``SimEnv``, ``PocEnv``, ``ProdEnv``).

    Args:
        folder: of the server, for the contributions.
        sites: so many must take part.
        name: of the job.
    """
    return NumpyFedAvgRecipe(
        name=name,
        model=[0.0],
        min_clients=sites,
        num_rounds=1,
        train_script=__file__,
        aggregator=Collector(str(folder)),
    )


def contribution(settings: Path) -> bytes:
    """Let the bundle that is installed here write this site's contribution, and return the file."""
    own: dict[str, Any] = json.loads(settings.read_text())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "contribution.safetensors"
        words = ["contribute", own["run"], str(file), "--site", own["site"], *own.get("words", [])]
        done = subprocess.run([sys.executable, "-m", "dynammo", *words], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr else "dynammo contribute failed")
        return file.read_bytes()


def client() -> None:
    """Answer one round with this site's contribution."""
    import nvflare.client as flare

    flare.init()
    while flare.is_running():
        if flare.receive() is None:
            break
        settings = Path(os.environ[SETTINGS].format(site=flare.get_site_name()))
        flare.send(FLModel(params={PART: np.frombuffer(contribution(settings), np.uint8)}))


if __name__ == "__main__":
    client()
