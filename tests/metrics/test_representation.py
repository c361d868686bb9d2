"""CKA against what it must not change with, and planes that keep what is apart apart."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ortho_group

from scripts.metrics.representation import linear_cka, nearest_neighbour_accuracy, neighbourhoods, principal_components

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(60, 5))
GROUPS = np.concatenate([RNG.normal(size=(20, 8)), 20 + RNG.normal(size=(20, 8))])


def test_cka_is_the_same_for_rotated_shifted_and_scaled_features() -> None:
    moved = 3 * FEATURES @ ortho_group.rvs(5, random_state=0) + 7
    assert linear_cka(FEATURES, moved) == pytest.approx(1)
    other = RNG.normal(size=(60, 3))
    assert linear_cka(FEATURES, other) == pytest.approx(linear_cka(moved, other))


def test_cka_is_the_alignment_of_centred_kernels() -> None:
    """Kornblith et al. (2019), equations 2 and 3: HSIC of the two linear kernels over the root of their own."""
    other = RNG.normal(size=(60, 3)) + FEATURES[:, :3]
    centre = np.eye(60) - 1 / 60
    kernels = [centre @ (values @ values.T) @ centre for values in (FEATURES, other)]
    hsic = [[np.trace(one @ two) for two in kernels] for one in kernels]
    assert linear_cka(FEATURES, other) == pytest.approx(hsic[0][1] / np.sqrt(hsic[0][0] * hsic[1][1]))
    assert linear_cka(FEATURES, np.ones((60, 2))) is None


@pytest.mark.parametrize("project", [principal_components, neighbourhoods])
def test_groups_that_are_apart_stay_apart(project: object) -> None:
    assert callable(project)
    plane = project(GROUPS)
    assert plane.shape == (40, 2)
    centres = plane[:20].mean(0), plane[20:].mean(0)
    near = [np.linalg.norm(plane - centre, axis=1) for centre in centres]
    assert ((near[0] < near[1]) == (np.arange(40) < 20)).all()
    assert np.array_equal(plane, project(GROUPS))


def test_nearest_neighbours_are_found_by_the_cosine_and_are_others() -> None:
    features = [[1.0, 0.0], [10.0, 0.1], [0.0, 1.0], [0.1, 10.0]]
    assert nearest_neighbour_accuracy(features, [0, 0, 1, 1]) == 1
    assert nearest_neighbour_accuracy(features, [0, 1, 1, 1]) == 0.5
