"""The service put together: what the routes ask."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from scripts.deploy.service.access import Access
from scripts.deploy.service.acquisition import DESCRIPTIONS, UNCERTAINTY, coverage
from scripts.deploy.service.answering import Answering
from scripts.deploy.service.background import Background
from scripts.deploy.service.guards import RequestLimits
from scripts.deploy.service.images import ImageStore, Tag, new_change, require_class_name
from scripts.deploy.service.problems import Cause, Problem, unknown
from scripts.deploy.service.sessions import Sessions
from scripts.deploy.service.trainings import Trainings
from scripts.deploy.service.users import Role, User
from scripts.deploy.service.views import Thumbnails
from scripts.deploy.versions.store import VersionStore
from scripts.utils.files import cannot_write

LOG = "service.log"
AT_ONCE = 20
"""Images that the model is asked about before it is looked whether another version is served."""


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
        self.asking = Background("asking the model about the images that wait")
        self.thumbnails = Thumbnails()
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
        files = self.images.paths()
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
            said = self.answering.results(waiting)
            wanted = UNCERTAINTY[strategy](np.array([[*one.probabilities.values()] for one in said.values()]))
        best = int(wanted.argmax())
        return list(waiting)[best], float(wanted[best])

    def ask_about_waiting(self) -> None:
        """See to it that the model is asked about the images without a label, one after the other, besides all else."""
        if self._unasked():
            with suppress(Problem):  # it is being asked
                self.asking.start({}, self._ask)

    def _unasked(self) -> list[str]:
        known = self.answering.known_results()
        return [one.image for one in self.images.listed() if one.label is None and one.image not in known]

    def _ask(self, stop: threading.Event) -> Mapping[str, Any]:
        asked = 0
        while not stop.is_set() and (images := self._unasked()[:AT_ONCE]):
            asked += len(self.answering.results({image: self.images.path(image) for image in images}, stop))
        return {"images": asked}

    def relabel(self, images: Sequence[str], label: str | None, user: User) -> str:
        """Say of images what they show, or take it back; what another label had before is written to the audit log.

        Returns:
            What the change is called.

        Raises:
            Problem: see :meth:`ImageStore.relabel`; 403 where a label is taken back by who may not.
        """
        if label is None and not user.role.may_act_as(Role.ADMIN):
            message = f"labels are taken away by the role {Role.ADMIN}; your own last change can be undone"
            raise Problem(403, message, Cause.ROLE, role=Role.ADMIN)
        if label is not None:
            require_class_name(label)
        known = {image: self.images.record(image)["labels"].get(Tag.FINAL) for image in set(images)}
        names = [label if own is None else own["info"]["label"] for own in known.values()]
        change = new_change()
        if before := Counter(name for name in names if name != label):
            details = {"change": change, "images": len(known), "before": dict(before), "label": label}
            self.versions.audit.add("labels changed", details, user.name)
        return self.images.relabel(images, label, user.name, change)

    def undo(self, change: str, user: User) -> list[str]:
        """Take a change of labels back, one's own or, as an admin, anybody's; return the images.

        Raises:
            Problem: see :meth:`ImageStore.undo`; 403 where another person made it.
        """
        if self.images.author(change) != user.name and not user.role.may_act_as(Role.ADMIN):
            message = f"another person made this change: the role {Role.ADMIN} can take it back"
            raise Problem(403, message, Cause.OTHERS_CHANGE)
        self.versions.audit.add("labels undone", {"change": change}, user.name)
        return self.images.undo(change, user.name)

    def rollback(self, by: str) -> int:
        """Serve the version that was served before, and return its number.

        Raises:
            Problem: 409, there is none.
        """
        if len(self.versions.history()) < 2:
            raise Problem(409, "no version was served before this one")
        return VersionStore(**self.versions.place, by=by).rollback()

    def serve(self, number: int, by: str) -> None:
        """Serve a version again that was served before: it has passed the check once, or a person answers for it.

        Raises:
            Problem: 404, there is none of this number; 409, it was never served.
        """
        if number not in {version.number for version in self.versions.versions()}:
            raise unknown("version")
        if number not in {one["version"] for one in self.versions.audit.events() if one["event"] == "promoted"}:
            message = f"version {number} was never served: it has to pass the check first (dynammo versions promote)"
            raise Problem(409, message, Cause.NEVER_SERVED)
        VersionStore(**self.versions.place, by=by).promote(number, reason="it was served before")

    def close(self) -> None:
        """Finish what is at work."""
        for part in (self.scoring, self.batches, self.asking, self.thumbnails, self.answering):
            part.close()
