"""Active learning: which image to label next. Pure functions of what the model says of the images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Strategy = Callable[[np.ndarray], np.ndarray]


def least_confidence(probabilities: np.ndarray) -> np.ndarray:
    """Return 1 - max p of each image (Lewis and Gale, SIGIR 1994): the higher, the sooner it should be labelled.

    Args:
        probabilities: [n, C].
    """
    return 1 - probabilities.max(1)


def margin(probabilities: np.ndarray) -> np.ndarray:
    """Return 1 - (p1 - p2), the best two classes (Scheffer et al., IDA 2001); 0 where there is one class.

    Args:
        probabilities: [n, C].
    """
    if probabilities.shape[1] < 2:
        return np.zeros(len(probabilities))
    second, first = np.partition(probabilities, -2, axis=1)[:, -2:].T
    return 1 - (first - second)


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Return - sum p log p (Shannon, 1948), in nats.

    Args:
        probabilities: [n, C].
    """
    logarithms = np.log(probabilities, out=np.zeros_like(probabilities), where=probabilities > 0)
    return -(probabilities * logarithms).sum(1)


def coverage(features: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """Return the distance of each image to the nearest that is labelled; the farthest is next.

    Labelling the farthest image again and again is the greedy k-centre cover (Gonzalez, 1985; Sener and Savarese, ICLR
    2018). Where none is labelled, the distance to the mean of all.

    Args:
        features: [n, d].
        labelled: features [m, d].
    """
    centres = labelled if len(labelled) else features.mean(0, keepdims=True)
    squares = (features**2).sum(1)[:, None] + (centres**2).sum(1)[None] - 2 * features @ centres.T
    return np.sqrt(np.maximum(squares, 0)).min(1)


UNCERTAINTY: dict[str, Strategy] = {"least_confidence": least_confidence, "margin": margin, "entropy": entropy}

DESCRIPTIONS = {
    "random": "Any image that is not labelled",
    "least_confidence": "The image whose best class is least probable",
    "margin": "The image whose best two classes are closest",
    "entropy": "The image over which the probability is spread most",
    "coverage": "The image whose features are farthest from all labelled ones (greedy k-centre)",
}
