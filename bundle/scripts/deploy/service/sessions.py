"""Images that are kept for a while, to be asked about again without being sent again."""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from scripts.deploy.service.images import encoded
from scripts.deploy.service.problems import unknown
from scripts.utils.files import write_atomically

LARGEST = 100


class Sessions:
    """Images as pixels, in a folder that is emptied when the service starts.

    Args:
        folder: made where it is missing.
        expiry: seconds after which an image that was not asked about is dropped.
    """

    def __init__(self, folder: str | Path, expiry: int) -> None:
        self.folder = Path(folder).absolute()
        self.expiry = expiry
        self._sessions: dict[str, dict[str, Any]] = {}
        self._access = threading.Lock()
        shutil.rmtree(self.folder, ignore_errors=True)

    def add(self, pixels: np.ndarray, expiry: int) -> dict[str, Any]:
        """Keep an image for up to ``expiry`` seconds, where that is above 0; at most so many images are kept."""
        name, now = str(uuid.uuid4()), int(time.time())
        suffix, content = encoded(pixels)
        write_atomically(self.folder / f"{name}{suffix}", content)
        session = {
            "name": name,
            "path": "",
            "image": f"{name}{suffix}",
            "meta": {},
            "create_ts": now,
            "last_access_ts": now,
            "expiry": min(expiry, self.expiry) if expiry > 0 else self.expiry,
        }
        with self._access:
            self._sessions[name] = session
            over = sorted(self._sessions.values(), key=lambda one: one["last_access_ts"])[:-LARGEST]
            for old in [one for one in self._sessions.values() if _is_over(one)] + over:
                self._drop(old)
        return dict(session)

    def get(self, name: str) -> dict[str, Any]:
        """Return a session.

        Raises:
            Problem: there is none of this name, or it is over.
        """
        with self._access:
            session = self._sessions.get(name)
            if session is None or _is_over(session):
                raise unknown("session")
            session["last_access_ts"] = int(time.time())
            return dict(session)

    def path(self, name: str) -> Path:
        """Return the file of a session's image.

        Raises:
            Problem: there is none of this name, or it is over.
        """
        return self.folder / self.get(name)["image"]

    def remove(self, name: str) -> dict[str, Any]:
        """Drop a session, and return it.

        Raises:
            Problem: there is none of this name, or it is over.
        """
        session = self.get(name)
        with self._access:
            self._drop(session)
        return session

    def _drop(self, session: dict[str, Any]) -> None:
        self._sessions.pop(session["name"], None)
        (self.folder / session["image"]).unlink(missing_ok=True)


def _is_over(session: dict[str, Any]) -> bool:
    return session["last_access_ts"] + session["expiry"] < time.time()
