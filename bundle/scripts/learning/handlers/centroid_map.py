"""Class means follow a merge by how far the centroid of the images at hand has moved."""

from __future__ import annotations

from torch import Tensor

from scripts.learning.features.extractor import FeatureExtractor
from scripts.learning.features.sums import FeatureSums
from scripts.learning.handlers.closed_form import ClosedFormHandler
from scripts.model.networks.closed_form import centroid_map
from scripts.model.networks.continual import ContinualNet


class CentroidMapHandler(ClosedFormHandler):
    """A head of class means, from sums that follow a merge by a shift.

    Source: Fukuda et al., ACMap (CVPR 2025), centroid prototype mapping.

    Args:
        network: the growing network.
        sums: what is kept; named in ``save``.
        features: computes features.
        least_images: fewer of a class are refused.
    """

    def __init__(self, network: ContinualNet, sums: FeatureSums, features: FeatureExtractor, least_images: int) -> None:
        super().__init__(
            network, sums, features, shrinkage=1.0, candidates=(), drift_ridge=0.0, least_images=least_images
        )

    def drift(self, before: Tensor, after: Tensor) -> Tensor:
        """Return the shift of the centroid."""
        return centroid_map(before, after)
