"""Sums over features tell ridge regression all that the images do, whatever the order, and forget an image exactly."""

from __future__ import annotations

import io
from itertools import permutations

import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor
from torch.nn.functional import one_hot

from scripts.learning.features import FeatureSums
from scripts.model.networks.closed_form import middle_scores, ridge, whitening
from scripts.utils.errors import UserError

COUNTS = (9, 30, 5, 12, 7)  # images a class
WIDTH = 21  # more than some classes have images


def class_vectors(label: int, count: int | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(label)
    x = torch.randn(count or COUNTS[label], WIDTH, dtype=torch.double, generator=generator) + label
    return torch.cat([x, torch.ones(len(x), 1, dtype=torch.double)], 1)


def plain_ridge(classes: list[Tensor], weights: list[float], shrinkage: float = 0.3) -> Tensor:
    """Ridge regression on all rows at once, each weighted, the plainest way."""
    x = torch.cat(classes)
    w = torch.cat([torch.full([len(rows)], weight).double() for rows, weight in zip(classes, weights, strict=True)])
    targets = torch.block_diag(*[torch.ones(len(rows), 1, dtype=torch.double) for rows in classes])
    second = x.T @ (w[:, None] * x)
    penalty = shrinkage * second.trace() / len(second) * torch.eye(len(second), dtype=torch.double)
    return torch.linalg.solve(second + penalty, x.T @ (w[:, None] * targets)).T


def sums_over(order: list[list[int]], apart: bool = False) -> FeatureSums:
    """Learn the classes of each task in ``order``, numbered as they come."""
    sums, known = FeatureSums(apart=apart), 0
    for task in order:
        labels = [torch.full([COUNTS[label]], known + number) for number, label in enumerate(task)]
        sums.add(torch.cat([class_vectors(label) for label in task]), torch.cat(labels))
        known += len(task)
    return sums


@pytest.mark.parametrize("order", list(permutations([[0, 1], [2], [3, 4]])))
def test_tasks_one_after_the_other_give_the_head_of_all_images_at_once(order: tuple[list[int], ...]) -> None:
    sums = sums_over(list(order))
    classes = [label for task in order for label in task]
    expected = plain_ridge([class_vectors(label) for label in classes], [1 / COUNTS[label] for label in classes])
    assert torch.allclose(ridge(sums.second[0], sums.first, 0.3), expected, rtol=0, atol=1e-8)


def test_the_shrinkage_that_erred_least_over_all_tasks_is_chosen_in_a_later_process_too() -> None:
    sums = FeatureSums()
    assert sums.choose({0.1: 3.0, 1.0: 2.0}) == 1.0
    saved = io.BytesIO()
    torch.save(sums.state_dict(), saved)
    saved.seek(0)
    later = FeatureSums()
    later.load_state_dict(torch.load(saved, weights_only=True))
    assert later.choose({0.1: 2.5, 1.0: 3.0}) == 1.0, "5.0 against 5.5"
    assert later.choose({0.1: 1.0, 1.0: 2.5}) == 0.1, "6.5 against 7.5"
    assert later.choose({0.1: 1.0, 0.3: 0.5}) == 0.3, "of other candidates nothing is known"


def test_the_size_does_not_depend_on_images_or_tasks() -> None:
    def numbers(sums: FeatureSums) -> int:
        return sum(value.numel() for value in sums.state_dict().values() if isinstance(value, Tensor))

    expected = (WIDTH + 1) ** 2 + 5 * (WIDTH + 1) + 5
    assert numbers(sums_over([[0, 1, 2, 3, 4]])) == numbers(sums_over([[0], [1], [2], [3], [4]])) == expected
    assert sums_over([[0, 1, 2, 3, 4]]).kept_bytes() == 8 * expected
    assert numbers(sums_over([[0, 1]], apart=True)) == 2 * (WIDTH + 1) ** 2 + 2 * (WIDTH + 1) + 2


@pytest.mark.parametrize("apart", [False, True])
def test_forgetting_images_gives_the_head_of_the_rest_with_the_weights_as_they_were(apart: bool) -> None:
    sums = sums_over([[0, 1], [2, 3]], apart)
    sums.subtract(class_vectors(1)[4:7], 1)
    rest = [class_vectors(label) for label in range(4)]
    rest[1] = torch.cat([rest[1][:4], rest[1][7:]])
    expected = plain_ridge(rest, [1 / count for count in COUNTS[:4]])
    assert torch.allclose(ridge(sums.second.sum(0), sums.first, 0.3), expected, rtol=0, atol=1e-8)


def test_means_and_covariances_of_what_is_left_are_read_off_the_sums() -> None:
    sums = sums_over([[0, 1]], apart=True)
    sums.subtract(class_vectors(1)[:3], 1)
    rest = class_vectors(1)[3:, :-1]
    second = sums.second[1, :-1, :-1] / sums.first[1, -1]
    mean = sums.first[1, :-1] / sums.first[1, -1]
    assert torch.allclose(mean, rest.mean(0), atol=1e-10)
    expected = whitening((rest.T @ rest / len(rest))[None], rest.mean(0)[None], 1.0)
    assert torch.allclose(whitening(second[None], mean[None], 1.0), expected, atol=1e-6)


def test_images_that_were_not_learnt_or_are_all_there_is_are_not_subtracted() -> None:
    sums = sums_over([[2]])
    before = sums.second.clone()
    with pytest.raises(UserError, match="was not learnt from these images"):
        sums.subtract(class_vectors(0)[:1], 0)
    with pytest.raises(UserError, match="as many images as the class has"):
        sums.subtract(class_vectors(2), 0)
    assert torch.equal(sums.second, before)


def test_sums_carried_along_an_affine_map_are_those_of_the_moved_features() -> None:
    drift = torch.randn(WIDTH + 1, WIDTH + 1, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    drift[:, -1] = torch.eye(WIDTH + 1)[-1]
    for apart in (False, True):
        sums, moved = sums_over([[0, 1]], apart), FeatureSums(apart=apart)
        sums.carry(drift)
        labels = torch.tensor([0] * COUNTS[0] + [1] * COUNTS[1])
        moved.add(torch.cat([class_vectors(0), class_vectors(1)]) @ drift, labels)
        assert torch.allclose(sums.second, moved.second, atol=1e-9)
        assert torch.allclose(sums.first, moved.first, atol=1e-9)


def test_saved_and_loaded_sums_go_on_bit_equal() -> None:
    file = io.BytesIO()
    torch.save(sums_over([[0, 1]]).state_dict(), file)
    file.seek(0)
    loaded = FeatureSums()
    loaded.load_state_dict(torch.load(file, weights_only=True))
    loaded.add(class_vectors(2), torch.full([COUNTS[2]], 2))
    assert torch.equal(loaded.second, sums_over([[0, 1], [2]]).second)


def test_features_that_do_not_fit_are_refused() -> None:
    sums = sums_over([[0, 1]])
    with pytest.raises(UserError, match="features of width 5 do not fit sums of width 21"):
        sums.add(torch.ones(4, 6).double(), torch.full([4], 2))
    with pytest.raises(UserError, match="features are no numbers"):
        sums.add(class_vectors(2) / 0, torch.full([COUNTS[2]], 2))
    with pytest.raises(UserError, match=r"cannot take the classes \[3\] next"):
        sums.add(class_vectors(2), torch.full([COUNTS[2]], 3))


def findings(count: int = 30, seed: int = 5) -> tuple[Tensor, Tensor]:
    """Vectors of images, and which of three findings they have: some have several, some none."""
    generator = torch.Generator().manual_seed(seed)
    targets = (torch.rand(count, 3, generator=generator) < 0.4).long()
    return class_vectors(0, count), targets


def image_weights(targets: Tensor, weights: Tensor) -> Tensor:
    """The definition, image by image."""
    none = int((targets.sum(1) == 0).sum())
    return torch.stack([weights[row == 1].mean() if row.any() else torch.tensor(1 / none).double() for row in targets])


@pytest.mark.parametrize("known", [3, 2])
def test_findings_are_solved_as_weighted_ridge_regression_with_a_column_each(known: int) -> None:
    first, targets = findings()
    targets[:, known:] = 0
    later, told = findings(seed=6)
    later = later + 1
    sums = FeatureSums()
    sums.add_findings(first, targets[:, :known])
    if known < 3:
        sums.add_findings(later, told)
        x, y = torch.cat([first, later]), torch.cat([targets, told])
        weights = torch.cat([1 / targets[:, :2].sum(0).double(), 1 / told[:, 2:].sum(0).double()])
        w = torch.cat([image_weights(targets, weights), image_weights(told, weights)])
    else:
        x, y, w = first, targets, image_weights(targets, 1 / targets.sum(0).double())
    penalty = 0.3 * float((x.T @ (w[:, None] * x)).trace()) / x.shape[1]
    plain = Ridge(alpha=penalty, fit_intercept=False, solver="cholesky").fit(x.numpy(), y.numpy(), w.numpy())
    assert torch.allclose(ridge(sums.second[0], sums.first, 0.3), torch.from_numpy(plain.coef_), rtol=0, atol=1e-8)


def test_images_with_one_finding_each_are_summed_as_those_of_a_class() -> None:
    vectors, labels = class_vectors(0, 12), torch.arange(12) % 3
    as_classes, as_findings = FeatureSums(), FeatureSums()
    as_classes.add(vectors, labels)
    as_findings.add_findings(vectors, one_hot(labels))
    for name in ("second", "first", "weights"):
        assert torch.allclose(getattr(as_classes, name), getattr(as_findings, name), atol=1e-12), name


def test_a_finding_is_present_from_halfway_between_the_mean_scores_with_and_without_it() -> None:
    vectors, targets = findings()
    sums = FeatureSums()
    sums.add_findings(vectors, targets)
    head = ridge(sums.second[0], sums.first, 0.3)
    scores, weights = vectors @ head.T, sums.image_weights(targets)[:, None]
    for number, found in enumerate(middle_scores(sums.second[0], sums.first, head)):
        present = targets[:, number] == 1
        means = [(weights[side] * scores[side])[:, number].sum() / weights[side].sum() for side in (present, ~present)]
        assert float(found) == pytest.approx(float(sum(means)) / 2)


def test_findings_without_images_are_refused() -> None:
    vectors, targets = findings()
    with pytest.raises(UserError, match="a finding without images"):
        FeatureSums().add_findings(vectors, targets * torch.tensor([1, 1, 0]))
