"""Figures of the node for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from scripts.deploy.inference.drift import DriftMonitor
from scripts.deploy.queue import State


@dataclass(frozen=True)
class Standing:
    """How a node stands at one moment.

    Attributes:
        trouble: why nothing goes on; ``None`` where it does.
        counts: images in each state.
        waiting_seconds: how long the oldest image has waited for its next step; 0 where none waits.
        free_bytes: of the disk of the queue.
        disk_bytes: of it in all.
    """

    trouble: str | None
    counts: dict[State, int]
    waiting_seconds: float
    free_bytes: int
    disk_bytes: int


class _Figures(Collector):
    def __init__(self, standing: Standing, drift: DriftMonitor | None) -> None:
        self.standing = standing
        self.drift = drift

    def collect(self) -> Iterator[Metric]:
        standing = self.standing
        images = GaugeMetricFamily("node_images", "Images in each state", labels=["state"])
        for state, count in standing.counts.items():
            images.add_metric([state], count)
        yield images
        yield GaugeMetricFamily("node_ready", "1 where images go on", value=float(standing.trouble is None))
        yield GaugeMetricFamily(
            "node_waiting_seconds", "How long the oldest image waits for its next step", value=standing.waiting_seconds
        )
        yield GaugeMetricFamily("node_disk_free_bytes", "Free on the disk of the queue", value=standing.free_bytes)
        yield GaugeMetricFamily("node_disk_bytes", "The disk of the queue", value=standing.disk_bytes)
        if self.drift is not None:
            yield CounterMetricFamily(
                "node_drift_alarms", "Comparisons in which the images differed", value=self.drift.alarms
            )
            yield CounterMetricFamily(
                "node_drift_comparisons", "Comparisons with the model's images", value=self.drift.comparisons
            )


def figures(standing: Standing, drift: DriftMonitor | None) -> bytes:
    """Return all figures in Prometheus' text format.

    Args:
        standing: of the node.
        drift: what compares its images; ``None``: nobody does.
    """
    registry = CollectorRegistry()
    registry.register(_Figures(standing, drift))
    ProcessCollector(registry=registry)
    return generate_latest(registry)
