"""How alike two representations of the same images are, and their pictures in the plane."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.neighbors import NearestNeighbors

PERPLEXITY = 30.0
"""Of t-SNE: about how many neighbours an image has; a third of the images where there are few."""


def linear_cka(first: ArrayLike, second: ArrayLike) -> float | None:
    """Return the linear centred kernel alignment of two representations, 0..1; None where one is constant.

    It is the same for rotated, shifted or evenly scaled features. Source: Kornblith et al., Similarity of neural
    network representations revisited (ICML 2019), linear kernels.

    Args:
        first: [N, c].
        second: [N, d], of the same N images in the same order.
    """
    one, other = (np.asarray(values, np.float64) for values in (first, second))
    one, other = one - one.mean(0), other - other.mean(0)
    across = np.linalg.norm(one.T @ other) ** 2
    own = np.linalg.norm(one.T @ one) * np.linalg.norm(other.T @ other)
    return float(across / own) if own > 0 else None


def principal_components(features: ArrayLike) -> NDArray[np.float64]:
    """Return the first two principal components of features [N, d], N > 2, as [N, 2]."""
    return PCA(2, random_state=0).fit_transform(np.asarray(features, np.float64))


def neighbourhoods(features: ArrayLike) -> NDArray[np.float64]:
    """Return the plane [N, 2] of t-SNE, in which neighbours among features [N, d], N > 3, stay neighbours.

    Distances between groups, and their sizes, mean nothing in it. Source: van der Maaten and Hinton, Visualizing data
    using t-SNE (JMLR 2008).
    """
    values = np.asarray(features, np.float64)
    perplexity = min(PERPLEXITY, (len(values) - 1) / 3)
    plane: NDArray[np.float64] = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(values)
    return plane


def nearest_neighbour_accuracy(features: ArrayLike, labels: ArrayLike) -> float:
    """Return the share of images whose nearest other image, by the cosine of their features, has their label, 0..1.

    Args:
        features: [N, d], N > 1.
        labels: class numbers, [N].
    """
    values, classes = np.asarray(features, np.float64), np.asarray(labels)
    nearest = NearestNeighbors(n_neighbors=1, metric="cosine").fit(values).kneighbors(return_distance=False)
    return float((classes[nearest[:, 0]] == classes).mean())
