"""A candidate is taken where it errs less, by more than chance, on classes that have no part in it."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from monai.transforms import RandFlipd
from torch.nn.functional import pad

from scripts.imaging.transforms import flip_views, orientation_views
from scripts.learning.features import CandidateSums, FeatureExtractor, FeatureSums
from scripts.learning.features.candidates import compared
from scripts.model.networks.closed_form import class_errors, leave_one_out


def judged(*errors: list[list[float]], tuned: int, **arguments: object) -> CandidateSums:
    """Sums of frozen and tuned features that have judged these errors, a task each, of each candidate on each class."""
    sums = CandidateSums([()], branches=["backbone", "merged"], **arguments)  # type: ignore[arg-type]
    for task in errors:
        sums.judge(task, tuned)
    return sums


def test_classes_that_the_adapters_have_learnt_from_do_not_judge_them() -> None:
    first = [[0.9, 0.9], [0.0, 0.0]]
    assert judged(first, tuned=2).chosen.branch == "backbone", "no later class is there"
    assert judged(first, [[0.5, 0.6], [0.6, 0.7]], tuned=2).chosen.branch == "backbone"
    assert judged(first, [[0.5, 0.6], [0.4, 0.4]], tuned=2).chosen.branch == "merged"
    assert judged(first, [[0.5], [0.1]], tuned=2).chosen.branch == "backbone", "a single class says nothing"


def test_the_choice_is_made_anew_from_all_classes_so_far() -> None:
    sums = judged([[0.9], [0.1]], [[0.5, 0.5], [0.4, 0.4]], tuned=1)
    assert sums.chosen.branch == "merged"
    sums.judge([[0.5], [0.9]], 1)
    assert sums.chosen.branch == "backbone"
    assert [verdicts[0]["taken"] for verdicts in sums.verdicts] == [False, True, False]
    assert [verdicts[0]["classes"] for verdicts in sums.verdicts] == [0, 2, 3]


@pytest.mark.parametrize(("gains", "taken"), [((1.0, 1.0), True), ((3.0, -1.0), False), ((3.0, 2.0, -0.5), True)])
def test_tuned_features_are_taken_where_they_gain_more_than_the_standard_error(
    gains: tuple[float, ...], taken: bool
) -> None:
    errors = [5.0] * len(gains), [5.0 - gain for gain in gains]
    assert (judged([*errors], tuned=0).chosen.branch == "merged") == taken
    found, values = compared(*errors), torch.tensor(gains)
    assert found["gain"] == pytest.approx(float(values.sum()) / (5 * len(gains)))
    assert found["standard_error"] == pytest.approx(float(values.std() * len(gains) ** 0.5) / (5 * len(gains)))


def test_of_several_each_is_compared_with_the_one_that_stands() -> None:
    sums = CandidateSums([()], further_views=[(3,)], branches=["backbone", "merged"])
    verdicts = sums.judge([[0.5, 0.5], [0.4, 0.4], [0.45, 0.45], [0.1, 0.1]], 0)
    assert [(one["candidate"], one["against"], one["taken"]) for one in verdicts] == [
        ("frozen, 2 views", "frozen, 1 view", True),
        ("tuned, 1 view", "frozen, 2 views", False),
        ("tuned, 2 views", "frozen, 2 views", True),
    ]
    assert (sums.chosen.branch, sums.chosen.views) == ("merged", [[], [3]])


@pytest.mark.parametrize(("further", "position"), [([0.1, 0.6], 1), ([0.9, 0.4], 0), ([0.5, 0.5], 0)])
def test_of_one_branch_the_views_that_err_least_on_all_classes_are_taken(further: list[float], position: int) -> None:
    sums = CandidateSums([()], further_views=[(3,)])
    sums.judge([[0.5, 0.5], further], 2)
    assert sums.position == position


def test_what_was_judged_goes_on_in_a_later_process() -> None:
    sums, file = judged([[0.9], [0.1]], [[0.5, 0.5], [0.4, 0.4]], tuned=1), io.BytesIO()
    labels = torch.tensor([0, 0, 1, 1])
    for number, own in enumerate(sums.candidates):
        own.add(torch.rand(4, 3, dtype=torch.double, generator=torch.Generator().manual_seed(number)), labels)
    torch.save(sums.state_dict(), file)
    file.seek(0)
    later = CandidateSums([()], branches=["backbone", "merged"])
    later.load_state_dict(torch.load(file, weights_only=True))
    assert later.chosen.branch == "merged"
    assert torch.equal(later.chosen.second, sums.chosen.second)
    assert later.measured() == sums.measured()
    assert later.judge([[0.5], [0.9]], 1) == sums.judge([[0.5], [0.9]], 1)
    assert later.kept_bytes() == sum(own.kept_bytes() for own in later.candidates) > 0


def test_sums_over_orientations_are_those_of_the_images_rotated(tmp_path: Path, tiny: SimpleNamespace) -> None:
    items, network = tiny.items(tmp_path, 0, 3), tiny.network(sizes=[2])
    network.merge()
    flips = [RandFlipd("image", spatial_axis=1)]
    few, all_eight = CandidateSums(flip_views(flips), further_views=orientation_views(flips, 2)).candidates
    extract = FeatureExtractor(network, tiny.transform(), 4)
    pixels = torch.stack([entry["image"] for entry in tiny.transform()(items)])
    assert [len(own.views) for own in (few, all_eight)] == [2, 8]
    turned = [side.rot90(turns, (2, 3)) for side in (pixels, pixels.flip(3)) for turns in range(4)]
    with torch.no_grad():
        plain = torch.cat([network.backbone(images)[:, 0] for images in turned])
    expected = FeatureSums()
    expected.add(pad(plain.double(), (0, 1), value=1.0), torch.zeros(len(plain), dtype=torch.long))
    found = extract.features(items, all_eight.views).flatten(0, 1)[:, 0]
    all_eight.add(pad(found.double(), (0, 1), value=1.0), torch.zeros(len(found), dtype=torch.long))
    torch.testing.assert_close(all_eight.second, expected.second, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(all_eight.first, expected.first, rtol=1e-4, atol=1e-5)


def test_candidates_of_more_views_err_on_the_views_that_all_have() -> None:
    sums, labels = FeatureSums([(), (3,), (2,)]), torch.tensor([0] * 5 + [1] * 4)
    images = torch.randn(9, 3, 6, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    sums.add(images.flatten(0, 1), labels.repeat_interleave(3))
    targets = torch.eye(2).double()[labels]
    known = (sums.second[0], sums.first, images, targets, sums.weights[labels], 0.1)
    said = leave_one_out(*known)
    for views in (1, 2, 3):
        errors = (said[:, :views] - targets[:, None]).square().sum((1, 2))
        expected = torch.stack([errors[:5].mean(), errors[5:].mean()])
        assert torch.allclose(class_errors(*known, views=views), expected)
