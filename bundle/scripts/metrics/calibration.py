"""Whether a classifier is as often right as it says."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torchmetrics.functional.classification import multiclass_calibration_error

BINS = 15


def calibration_error(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Return the expected calibration error (ECE) with 15 bins of equal width, 0..1.

    Source: Guo et al., On calibration of modern neural networks (ICML 2017), equation 3.

    Args:
        labels: [N], class numbers.
        probabilities: [N, C], each row sums to 1.
    """
    scores = torch.as_tensor(np.asarray(probabilities, dtype=np.float64))
    truth = torch.as_tensor(np.asarray(labels, dtype=np.int64))
    return float(multiclass_calibration_error(scores, truth, num_classes=scores.shape[1], n_bins=BINS, norm="l1"))
