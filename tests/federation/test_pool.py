"""Sites that add equal one hospital with all images, in whatever order they come."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from scripts.federation.contribution import Contribution
from scripts.federation.fixed_point import from_fixed, symmetric, to_fixed, triangle
from scripts.federation.matching import match_classes
from scripts.federation.pool import Pool, averaged_adapters
from scripts.model.networks import Average, BySamples, Merging
from scripts.model.networks.heads import CovariancesHead
from scripts.utils.errors import UserError

# three sites, four tasks of two classes; the last class is one site's alone, counts are unequal
COUNTS = {
    "a": dict(zip("stuvwxyz", (20, 90, 11, 300, 13, 40, 12, 31), strict=True)),
    "b": dict(zip("stuvwxy", (120, 15, 18, 10, 45, 14, 77), strict=True)),
    "c": dict(zip("stuvwxy", (14, 13, 210, 29, 10, 16, 23), strict=True)),
}


@pytest.fixture(scope="module")
def images(fed: SimpleNamespace) -> dict[str, dict[str, torch.Tensor]]:
    found = {}
    for number, (site, classes) in enumerate(COUNTS.items()):
        found[site] = {name: fed.vectors(count, 100 * number + ord(name)) for name, count in classes.items()}
        for name, x in found[site].items():
            x[:, :-1] += ord(name) % 5  # all but the 1
    return found


@pytest.fixture(scope="module")
def given(
    fed: SimpleNamespace, images: dict[str, dict[str, torch.Tensor]], tmp_path_factory: pytest.TempPathFactory
) -> list[Contribution]:
    folder = tmp_path_factory.mktemp("sites")
    return [fed.give(folder, site, classes) for site, classes in images.items()]


def test_sites_in_any_order_equal_one_hospital_with_all_images(
    fed: SimpleNamespace, images: dict[str, dict[str, torch.Tensor]], given: list[Contribution]
) -> None:
    expected = fed.pooled(images)
    heads = [fed.solved(list(order)) for order in permutations(given)]
    assert all(fed.differences(head, expected) < 1e-8 for head in heads)
    seconds = [Pool(order, fed.same_names(order)).second("s") for order in permutations(given)]
    assert all(torch.equal(second, seconds[0]) for second in seconds), "integers add exactly"


@pytest.mark.parametrize("seed", range(3))
def test_tasks_in_any_order_at_each_site_equal_all_images(
    seed: int, fed: SimpleNamespace, images: dict[str, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    from scripts.learning.features import FeatureSums

    contributions, generator = [], torch.Generator().manual_seed(seed)
    for site, classes in images.items():
        pairs = [list(classes)[at : at + 2] for at in range(0, len(classes), 2)]
        order = [name for at in torch.randperm(len(pairs), generator=generator).tolist() for name in pairs[at]]
        sums = FeatureSums(apart=True)
        for at in range(0, len(order), 2):
            task = order[at : at + 2]
            labels = torch.cat([torch.full([len(classes[name])], at + n) for n, name in enumerate(task)])
            sums.add(torch.cat([classes[name] for name in task]), labels)
        counted = [sums.of_class(label) for label in range(len(order))]
        assert [images_of for images_of, _ in counted] == [len(classes[name]) for name in order]
        roots = {name: torch.linalg.cholesky(second).T for name, (_, second) in zip(order, counted, strict=True)}
        assert all(torch.allclose(root.T @ root, classes[name].T @ classes[name]) for name, root in roots.items())
        contributions.append(fed.give(tmp_path, site, {name: classes[name] for name in order}))
    assert fed.differences(fed.solved(contributions), fed.pooled(images)) < 1e-8


def test_a_later_site_and_a_withdrawn_one_equal_training_with_and_without_it(
    fed: SimpleNamespace, images: dict[str, dict[str, torch.Tensor]], given: list[Contribution]
) -> None:
    two = {site: images[site] for site in ("a", "b")}
    before = fed.solved(given[:2])
    assert fed.differences(before, fed.pooled(two)) < 1e-8
    assert fed.differences(fed.solved(given), fed.pooled(images)) < 1e-8
    after = fed.solved(given[:2])  # the third is taken out again
    assert all(torch.equal(before[name], after[name]) for name in before)
    without_a = {site: images[site] for site in ("b", "c")}
    assert "z" not in fed.solved(given[1:])
    assert fed.differences(fed.solved(given[1:]), fed.pooled(without_a)) < 1e-8


def test_unequal_counts_weigh_classes_alike_not_sites(
    fed: SimpleNamespace, images: dict[str, dict[str, torch.Tensor]], given: list[Contribution]
) -> None:
    """Summing what each site has weighed by its own counts gives another head."""
    own = [{name: x.T @ x / len(x) for name, x in classes.items()} for classes in images.values()]
    assert not torch.allclose(sum(site["s"] for site in own) / 3, Pool(given, fed.same_names(given)).second("s") / 154)


def test_covariances_of_each_class_are_pooled(fed: SimpleNamespace, images: dict, given: list[Contribution]) -> None:
    pool = Pool(given, fed.same_names(given))
    head = CovariancesHead(fed.width, [8])
    counts = pool.solve(head, 1.0, pool.classes())
    expected = torch.stack([torch.cat([own[n] for own in images.values() if n in own]).mean(0) for n in pool.classes()])
    assert torch.allclose(head.means.double(), expected[:, :-1], atol=1e-6)
    assert counts == {name: sum(own.get(name, 0) for own in COUNTS.values()) for name in "stuvwxyz"}


def test_float32_stays_within_its_tolerance_and_halves_the_file(
    fed: SimpleNamespace, images: dict, given: list[Contribution], tmp_path: Path
) -> None:
    narrow = [fed.give(tmp_path, site, classes, tolerance=1e-6) for site, classes in images.items()]
    exact, near = fed.solved(given), fed.solved(narrow)
    largest = max(float(row.abs().max()) for row in exact.values())
    assert 0 < fed.differences(near, exact) < 1e-6 * largest
    tensors = 8 * 4 * (fed.width + 1) * (fed.width + 2) // 2
    assert given[0].path.stat().st_size - narrow[0].path.stat().st_size == pytest.approx(tensors, abs=200)


def test_shrinkage_is_what_has_erred_least_at_all_sites_together(
    fed: SimpleNamespace, images: dict, tmp_path: Path
) -> None:
    tables = [{0.1: 1.0, 1.0: 2.0}, {0.1: 5.0, 1.0: 1.0}, {0.1: 1.0, 1.0: 3.0, 3.0: 0.0}]
    given = [fed.give(tmp_path, *pair, errors=own) for pair, own in zip(images.items(), tables, strict=True)]
    assert Pool(given, fed.same_names(given)).shrinkage() == 1.0
    bare = [fed.give(tmp_path, "d", images["a"])]
    with pytest.raises(UserError, match="no shrinkage was tried at all sites"):
        Pool(bare, fed.same_names(bare)).shrinkage()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"features": "c" * 64}, "features"),
        ({"base": "c" * 64}, "backbones' weights"),
        ({"image": {"size": 32, "mean": [0.5], "std": [0.5]}}, "ways to see an image"),
        ({"views": [[], [3]]}, "views"),
    ],
)
def test_sums_of_other_features_do_not_add(
    change: dict, said: str, fed: SimpleNamespace, images: dict, given: list[Contribution], tmp_path: Path
) -> None:
    other = fed.give(tmp_path, "d", images["a"], identity=change)
    with pytest.raises(UserError, match=f"sites a and d have different {said}"):
        fed.solved([given[0], other])


def test_a_class_that_one_site_alone_has_is_asked_about_once(given: list[Contribution], tmp_path: Path) -> None:
    table = tmp_path / "classes.csv"
    with pytest.raises(UserError, match=r"z of a\. Write into the column 'as'"):
        match_classes(given, {}, table)
    text = table.read_text()
    assert "a,s,,20,s\n" in text and "a,z,,31,\n" in text
    table.write_text(text.replace("a,z,,31,", "a,z,,31,y"))
    assert match_classes(given, {}, table)["a", "z"] == "y"
    table.write_text(text.replace("a,z,,31,", "a,z,,31,zoster"))
    assert match_classes(given, {}, table)["a", "z"] == "zoster"


def test_codes_match_where_names_differ_and_part_where_names_are_the_same(
    fed: SimpleNamespace, images: dict, tmp_path: Path
) -> None:
    nevus, other = ["SCT", "400096001", "nevus"], ["SCT", "254701007", "other"]
    x = images["a"]["s"]
    a = fed.give(tmp_path, "a", {"nevus": x, "x": x}, codes={"nevus": nevus})
    b = fed.give(tmp_path, "b", {"Naevus": x, "x": x}, codes={"Naevus": nevus})
    names = match_classes([a, b], {"nevus": "SCT 400096001", "x": ""}, tmp_path / "t.csv")
    assert names["b", "Naevus"] == "nevus"
    c = fed.give(tmp_path, "c", {"nevus": x}, codes={"nevus": other})
    with pytest.raises(UserError, match="nevus of c"):
        match_classes([a, c], {"nevus": "SCT 400096001", "x": ""}, tmp_path / "t.csv")


def test_two_classes_of_a_site_may_be_one_of_the_federation(fed: SimpleNamespace, images: dict, tmp_path: Path) -> None:
    x, y = images["a"]["s"], images["a"]["t"]
    one = fed.give(tmp_path, "a", {"left": x, "right": y, "other": y})
    pool = Pool([one], {("a", "left"): "lung", ("a", "right"): "lung", ("a", "other"): "other"})
    both = torch.cat([x, y])
    assert torch.allclose(pool.second("lung"), both.T @ both, atol=1e-8)


def test_adapters_are_averaged_by_the_row(fed: SimpleNamespace, images: dict, tmp_path: Path) -> None:
    states = [{"layer.change": torch.full((2, 3), float(value))} for value in (1, 4)]
    given = [
        fed.give(tmp_path, site, {"s": images[site]["s"]}, adapters=state, identity={"features": digit * 64})
        for site, state, digit in zip("ab", states, "12", strict=True)
    ]
    assert torch.equal(averaged_adapters(given, Merging())["layer.change"], torch.full((2, 3), 2.5))
    assert torch.equal(averaged_adapters(given[::-1], Merging(Average()))["layer.change"], torch.full((2, 3), 2.5))
    weighed = averaged_adapters(given, Merging(BySamples()))["layer.change"]
    assert torch.allclose(weighed, torch.full((2, 3), (20 * 1 + 120 * 4) / 140))
    bare = fed.give(tmp_path, "c", {"s": images["c"]["s"]})
    with pytest.raises(UserError, match="site c has tuned no adapters"):
        averaged_adapters([*given, bare], Merging())


def test_fixed_point_is_right_to_its_last_bit() -> None:
    values = torch.randn(200, dtype=torch.double, generator=torch.Generator().manual_seed(0)).numpy() * 1e4
    assert abs(from_fixed(to_fixed(values)) - values).max() <= 2.0**-31
    matrix = torch.randn(7, 7, dtype=torch.double)
    matrix = matrix + matrix.T
    assert torch.equal(symmetric(triangle(matrix)), matrix)
    for bad in (float("nan"), float("inf"), 1e8):
        with pytest.raises(UserError, match="sums have numbers of"):
            to_fixed(torch.tensor([bad]).double().numpy())
