"""The service put together: what the routes ask."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from scripts.deploy.service.access import Access
from scripts.deploy.service.acquisition import DESCRIPTIONS, UNCERTAINTY, coverage
from scripts.deploy.service.answering import Answering
from scripts.deploy.service.background import Background
from scripts.deploy.service.guards import RequestLimits
from scripts.deploy.service.images import ImageStore
from scripts.deploy.service.problems import unknown
from scripts.deploy.service.sessions import Sessions
from scripts.deploy.service.trainings import Trainings
from scripts.deploy.versions.store import VersionStore
from scripts.utils.files import cannot_write

LOG = "service.log"


class Service:
    """All that the routes ask for.

    Args:
        folder: of what the service keeps; for its owner's eyes (mode 0700).
        access: knows who asks.
        answering: the classifier.
        images: the images to be labelled.
        trainings: what learns.
        versions: the store of versions.
        session_seconds: see :class:`scripts.deploy.service.sessions.Sessions`.
        limits: of what callers may take.
        port: to listen on; 0 for any that is free.
    """

    def __init__(
        self,
        folder: str,
        access: Access,
        answering: Answering,
        images: ImageStore,
        trainings: Trainings,
        versions: VersionStore,
        session_seconds: int,
        limits: RequestLimits,
        port: int,
    ) -> None:
        self.folder = Path(folder).absolute()
        self.access = access
        self.answering = answering
        self.images = images
        self.trainings = trainings
        self.versions = versions
        versions.begin()
        self.limits = limits
        self.port = port
        self.sessions = Sessions(self.folder / "sessions", session_seconds)
        self.scoring, self.batches = Background("scoring"), Background("batch_infer")
        self.log = self.folder / LOG
        try:
            self.folder.chmod(0o700)
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    @property
    def model(self) -> str:
        """The name by which callers ask for the classifier."""
        return self.answering.classifier.model.name

    def require_model(self, name: str) -> None:
        """Refuse other models' names.

        Raises:
            Problem: 404.
        """
        if name != self.model:
            raise unknown("model", f"ask for {self.model}")

    def next_image(self, strategy: str) -> tuple[str, float] | None:
        """Return the image that should be labelled next, and how much a strategy wants it; none where all are.

        Raises:
            Problem: there is no such strategy.
        """
        if strategy not in DESCRIPTIONS:
            raise unknown("strategy", f"choose among {', '.join(DESCRIPTIONS)}")
        labelled = self.images.classes()
        files = {image: self.images.path(image) for image in self.images.records()}
        waiting = {image: file for image, file in files.items() if image not in labelled}
        if not waiting:
            return None
        if strategy == "random":
            return random.choice(list(waiting)), 1.0
        if strategy == "coverage":
            centres = self.answering.features({image: file for image, file in files.items() if image in labelled})
            features = np.array([*self.answering.features(waiting).values()])
            wanted = coverage(features, np.array([*centres.values()]).reshape(-1, features.shape[1]))
        else:
            said = self.answering.probabilities(waiting)
            wanted = UNCERTAINTY[strategy](np.array([[*scores.values()] for scores in said.values()]))
        best = int(wanted.argmax())
        return list(waiting)[best], float(wanted[best])

    def close(self) -> None:
        """Finish what is at work."""
        for part in (self.scoring, self.batches, self.answering):
            part.close()
