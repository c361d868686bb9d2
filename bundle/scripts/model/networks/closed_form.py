"""Heads in closed form: pure functions on sums over features, float64. A feature vector x ends with a constant 1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scripts.utils.errors import UserError

ROUNDING = 1e-10  # share of the squared features below which a variance is nothing but rounding


def ridge(second: Tensor, first: Tensor, shrinkage: float) -> Tensor:
    """Return the weights [C, D] of ridge regression to targets of 0 and 1: ``(G + a mean(diag G) I)^-1 Q``.

    Source: McDonnell et al., RanPAC (NeurIPS 2023); Zhuang et al., ACIL (NeurIPS 2022).

    Args:
        second: G, the weighted sum of x'x, [D, D].
        first: Q, the weighted sum of x of each class, [C, D].
        shrinkage: a, in units of the mean diagonal of G.

    Raises:
        UserError: when the sums are singular.
    """
    return _solve(_lifted(second, shrinkage), first.T).T


def drift_map(old: Tensor, new: Tensor, strength: float) -> Tensor:
    """Return the affine map A [D, D], ``new = old A``, that is fitted by ridge regression around the identity.

    What the images do not tell of stays as it is. The constant 1 stays 1.

    Args:
        old: feature vectors of images before they moved, [N, D].
        new: those of the same images after, [N, D].
        strength: of the ridge, in units of the mean diagonal of old'old.
    """
    moved = _solve(_lifted(old.T @ old, strength), old.T @ (new - old))
    return torch.eye(old.shape[1], dtype=old.dtype) + moved


def centroid_map(old: Tensor, new: Tensor) -> Tensor:
    """Return the affine map A [D, D] that shifts what there was as the centroid of some images has moved.

    Source: Fukuda et al., ACMap (CVPR 2025), centroid prototype mapping.

    Args:
        old: feature vectors of images before they moved, [N, D].
        new: those of the same images after, [N, D].
    """
    shift = torch.eye(old.shape[1], dtype=old.dtype)
    shift[-1] += (new - old).mean(0)
    return shift


def leave_one_out(
    second: Tensor, first: Tensor, images: Tensor, targets: Tensor, weights: Tensor, shrinkage: float
) -> Tensor:
    """Return what ridge regression without an image says of each of its views, [N, V, C], without fitting it again.

    The images are part of the sums. Source: Allen, The relationship between variable selection and data augmentation
    (1974), for a block of rows.

    Args:
        second: G, [D, D].
        first: Q, [C, D].
        images: the views of each image, [N, V, D].
        targets: 1 where an image is of a class, 0 elsewhere, [N, C].
        weights: of each image in the sums, [N].
        shrinkage: a.
    """
    views, width = images.shape[1:]
    shrunk = _solve(_lifted(second, shrinkage), images.reshape(-1, width).T).T.reshape(images.shape)
    targets = targets.to(images).unsqueeze(1).expand(-1, views, -1)
    leverage = weights[:, None, None] * shrunk @ images.transpose(1, 2)
    errors = torch.linalg.solve(torch.eye(views).to(images) - leverage, targets - shrunk @ first.T)
    return targets - errors


def shrinkage_errors(
    second: Tensor, first: Tensor, images: Tensor, targets: Tensor, weights: Tensor, candidates: Sequence[float]
) -> dict[float, float]:
    """Return the squared error of :func:`leave_one_out` under each candidate, each image weighted as in the sums.

    Args:
        second: as in :func:`leave_one_out`, like the next four.
        first: Q.
        images: of the newest classes, say: no other image is needed.
        targets: theirs.
        weights: theirs.
        candidates: values of a.
    """

    def error(shrinkage: float) -> float:
        said = leave_one_out(second, first, images, targets, weights, shrinkage)
        return float((weights * (said - targets.to(said).unsqueeze(1)).square().sum((1, 2))).sum())

    return {shrinkage: error(shrinkage) for shrinkage in candidates}


def class_errors(
    second: Tensor,
    first: Tensor,
    images: Tensor,
    targets: Tensor,
    weights: Tensor,
    shrinkage: float,
    views: int | None = None,
) -> Tensor:
    """Return the squared error of :func:`leave_one_out`, its mean over the images of each class, [C].

    Args:
        second: as in :func:`leave_one_out`, like the next five.
        first: Q.
        images: of the newest classes, say: no other image is needed, and the error of other classes is 0.
        targets: theirs.
        weights: theirs.
        shrinkage: a.
        views: how many of an image's views err, the first ones; all are left out. ``None``: all.
    """
    said = leave_one_out(second, first, images, targets, weights, shrinkage)[:, :views]
    errors = (said - targets.to(said).unsqueeze(1)).square().sum((1, 2))
    return errors @ (targets.to(errors) / targets.sum(0).clamp(min=1))


def middle_scores(second: Tensor, first: Tensor, weights: Tensor) -> Tensor:
    """Return for each finding the score halfway between the means of the images with and without it, [C].

    They are means over the images in the sums, as a head scores them now, whenever they were learnt.

    Args:
        second: G, [D, D].
        first: Q, [C, D].
        weights: of the head, [C, D].
    """
    without = second[-1] - first
    means = [sums / sums[:, -1:].clamp(min=torch.finfo(sums.dtype).tiny) for sums in (first, without)]
    return (weights * (means[0] + means[1])).sum(1) / 2


def whitening(second: Tensor, mean: Tensor, shrinkage: float) -> Tensor:
    """Return the matrices L^-1 [C, d, d], L L' the classes' covariances, shrunken and divided by their diagonals.

    Source: Goswami et al., FeCAM (NeurIPS 2023), equations 6 and 7, with both factors of the shrinkage alike.

    Args:
        second: mean of f'f of each class, [C, d, d].
        mean: of f of each class, [C, d].
        shrinkage: how many times the mean variance and the mean covariance are added.

    Raises:
        UserError: when a covariance is singular.
    """
    covariance = second - mean.unsqueeze(2) * mean.unsqueeze(1)
    width = covariance.shape[1]
    diagonal = torch.eye(width, dtype=torch.bool)
    variances = covariance.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    others = (covariance.sum((1, 2))[:, None, None] - width * variances) / max(width * (width - 1), 1)
    variances = variances + ROUNDING * (1 + mean.square().mean())  # a class that does not vary gets the identity
    covariance = covariance + shrinkage * torch.where(diagonal, variances, others)
    deviations = covariance.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    correlation = covariance / (deviations.unsqueeze(2) * deviations.unsqueeze(1))
    factors, broken = torch.linalg.cholesky_ex(correlation)
    if not correlation.isfinite().all() or broken.any():
        raise UserError(
            "the covariance of a class is singular: add images, raise 'shrinkage' above 0, or choose the head 'ncm'"
        )
    return torch.linalg.solve_triangular(factors, torch.eye(width, dtype=second.dtype), upper=False)


def _lifted(matrix: Tensor, share: float) -> Tensor:
    """Add ``share`` of the mean diagonal to the diagonal."""
    return matrix + share * matrix.diagonal().mean() * torch.eye(len(matrix), dtype=matrix.dtype)


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Solve for a positive definite matrix."""
    factor, broken = torch.linalg.cholesky_ex(matrix)
    pivots = factor.diagonal()
    if broken or not factor.isfinite().all() or (pivots.min() / pivots.max()) ** 2 < torch.finfo(matrix.dtype).eps:
        raise UserError("the sums over features are singular: raise 'shrinkage' (and 'drift_ridge') above 0")
    return torch.cholesky_solve(right, factor)
