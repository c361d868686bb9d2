"""Figures of the service for Prometheus."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")


class Metrics:
    """Counts requests, and says how much is kept.

    Args:
        images: returns how many images are kept.
        version: returns which version is served.
        training: returns whether a training runs.
        folder: of all that is kept.
    """

    def __init__(
        self, images: Callable[[], int], version: Callable[[], str], training: Callable[[], bool], folder: Path
    ) -> None:
        self._registry = CollectorRegistry()
        self._version = version
        labels = ("method", "route", "status")
        self._requests = Counter("service_requests", "Requests answered", labels, registry=self._registry)
        self._seconds = Histogram(
            "service_request_seconds", "Seconds until the answer", ("method", "route"), registry=self._registry
        )
        Gauge("service_images", "Images kept", registry=self._registry).set_function(images)
        free = Gauge("service_disk_free_bytes", "Free on the disk of the service", registry=self._registry)
        free.set_function(lambda: shutil.disk_usage(folder).free)
        disk = Gauge("service_disk_bytes", "The disk of the service", registry=self._registry)
        disk.set_function(lambda: shutil.disk_usage(folder).total)
        Gauge("service_training", "1 while a training runs", registry=self._registry).set_function(training)
        self._served = Gauge("service_version", "1 for the version served", ("version",), registry=self._registry)
        ProcessCollector(registry=self._registry)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        known = method if method in METHODS else "other"
        self._requests.labels(known, route, status).inc()
        self._seconds.labels(known, route).observe(seconds)

    def text(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        self._served.clear()
        self._served.labels(self._version()).set(1)
        return generate_latest(self._registry)
