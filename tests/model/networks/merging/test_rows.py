"""Each way of merging equals the plainest loop, and has its paper's properties."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from scripts.model.networks import ROWS, BySamples, Dare, MagMax, Slerp, Ties
from scripts.model.networks.merging.rows import Sparse, regmean, slerp, trim, weighted_average
from scripts.utils.errors import UserError


def random_vectors(count: int = 3, shape: tuple[int, ...] = (4, 5)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(count)
    return [torch.randn(shape, generator=generator, dtype=torch.double) for _ in range(count)]


def test_the_weighted_average_weighs_each_number_by_its_own() -> None:
    vectors, weights = random_vectors(), [vector.abs() for vector in random_vectors(4)[:3]]
    for weight in weights:
        weight[0, 0] = 0  # no image says anything of it
    found = weighted_average(vectors, weights)
    for row in range(4):
        for column in range(5):
            values = [float(vector[row, column]) for vector in vectors]
            scales = [float(weight[row, column]) for weight in weights] if row + column else [1.0] * 3
            expected = sum(v * w for v, w in zip(values, scales, strict=True)) / sum(scales)
            assert float(found[row, column]) == pytest.approx(expected, rel=1e-12)


def test_by_samples_a_task_with_three_times_the_images_counts_three_times() -> None:
    first, second = random_vectors(2)
    found = BySamples()([first, second], [torch.tensor(3.0), torch.tensor(1.0)])
    torch.testing.assert_close(found, (first + first + first + second) / 4)


def test_ties_elects_each_sign_by_hand() -> None:
    vectors = [torch.tensor([3.0, -1.0, 2.0, 0.1]), torch.tensor([-1.0, -2.0, -2.0, 0.1]), torch.tensor([2.0, 5, 0, 0])]
    # sums 4, 2, 0, 0.2: of the first entry 3 and 2 agree, of the second 5 alone, of the third nobody is elected
    torch.testing.assert_close(Ties(1.0)(vectors), torch.tensor([2.5, 5.0, 0.0, 0.1]))
    # a quarter of each: 3 alone, the earlier of -2 and -2 or none, 5 alone
    torch.testing.assert_close(Ties(0.25)([vectors[0], vectors[2]]), torch.tensor([3.0, 5.0, 0.0, 0.0]))


def test_ties_equals_the_plainest_loop() -> None:
    vectors = [trim(vector, 0.5) for vector in random_vectors()]
    found = Ties(0.5)(random_vectors()).flatten()
    for position in range(20):
        values = [float(vector.flatten()[position]) for vector in vectors]
        total = sum(values)
        agreeing = [value for value in values if value * total > 0]
        expected = sum(agreeing) / len(agreeing) if agreeing else 0
        assert float(found[position]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("density", "kept"), [(0.2, 2), (0.21, 3), (1.0, 10), (0.01, 1)])
def test_trimming_keeps_the_largest_magnitudes(density: float, kept: int) -> None:
    vector = torch.tensor([1.0, -10, 2, -9, 3, -8, 4, -7, 5, -6])
    found = trim(vector, density)
    assert sorted(found[found != 0].abs().tolist(), reverse=True) == [10.0 - rank for rank in range(kept)]
    assert torch.equal(found[found != 0], vector[found != 0])
    assert trim(torch.tensor(0.5), density) == 0.5, "a single number is always kept"


def test_dare_is_unbiased_and_seeded() -> None:
    vectors = random_vectors(2, (3, 3))
    generator = torch.Generator().manual_seed(0)
    draws = Dare(0.5)([vector.expand(4000, 3, 3) for vector in vectors], (), generator)
    # a draw's deviation is at most |v| sqrt(2) / 2: the mean of 4000 is within 5 deviations of it
    torch.testing.assert_close(draws.mean(0), (vectors[0] + vectors[1]) / 2, atol=0.2, rtol=0)
    assert len(draws.unique(dim=0)) > 100
    once, again = (Dare(0.5)(vectors, (), torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(once, again)
    torch.testing.assert_close(Dare(1.0)(vectors, (), generator), (vectors[0] + vectors[1]) / 2)


def test_dare_keeps_numbers_divided_by_the_density_or_drops_them() -> None:
    (vector,) = random_vectors(1, (50,))
    found = Dare(0.2)([vector], (), torch.Generator().manual_seed(0))
    kept = found != 0
    assert 0 < int(kept.sum()) < 50
    torch.testing.assert_close(found[kept], vector[kept] / 0.2)


def test_magmax_takes_the_largest_magnitude_with_its_sign() -> None:
    vectors = random_vectors()
    found = MagMax()(vectors).flatten()
    for position in range(20):
        assert float(found[position]) == max((float(vector.flatten()[position]) for vector in vectors), key=abs)


def test_slerp_keeps_the_length_of_unit_vectors_and_divides_the_angle() -> None:
    first, second = (vector / vector.norm() for vector in random_vectors(2))
    whole = torch.acos((first * second).sum())
    for share in (0.0, 0.25, 0.5, 1.0):
        found = slerp(first, second, share)
        assert float(found.norm()) == pytest.approx(1, abs=1e-9)
        assert float(torch.acos((first * found).sum().clamp(-1, 1))) == pytest.approx(share * float(whole), abs=1e-6)


def test_slerp_of_vectors_without_an_arc_between_them_is_linear() -> None:
    (vector,) = random_vectors(1)
    for other in (2 * vector, -vector, torch.zeros_like(vector)):
        torch.testing.assert_close(slerp(vector, other, 0.25), 0.75 * vector + 0.25 * other)
        torch.testing.assert_close(slerp(other, vector, 0.25), 0.75 * other + 0.25 * vector)


def test_slerp_folds_in_oldest_first() -> None:
    one, two, three = random_vectors()
    expected = slerp(slerp(one, two, 1 / 2), three, 1 / 3)
    torch.testing.assert_close(Slerp()([one, two, three]), expected)


def test_regmean_of_linear_layers_is_least_squares_on_all_inputs() -> None:
    weights = random_vectors(3, (4, 5))  # 5 inputs, 4 outputs
    inputs = random_vectors(3, (30, 5))
    grams = [(x.T @ x).reshape(1, 5, 1, 5) for x in inputs]
    outputs = torch.cat([x @ weight.T for x, weight in zip(inputs, weights, strict=True)])
    expected = torch.linalg.lstsq(torch.cat(inputs), outputs).solution.T
    torch.testing.assert_close(regmean(weights, grams), expected, atol=1e-5, rtol=0)


def test_regmean_averages_what_no_input_speaks_of() -> None:
    weights = random_vectors(2, (4, 5))
    inputs = random_vectors(2, (30, 5))
    for x in inputs:
        x[:, 2] = 0  # a dead channel
    found = regmean(weights, [(x.T @ x).reshape(1, 5, 1, 5) for x in inputs])
    torch.testing.assert_close(found[:, 2], (weights[0][:, 2] + weights[1][:, 2]) / 2)
    silent = regmean(weights, [torch.zeros(1, 5, 1, 5)] * 2)
    torch.testing.assert_close(silent, (weights[0] + weights[1]) / 2)


def test_an_unknown_row_is_refused_with_the_choice() -> None:
    with pytest.raises(UserError, match="unknown way of merging 'no_such': choose one of average, running_mean, "):
        ROWS.find("no_such")


@pytest.mark.parametrize("row", [Ties, Dare])
@pytest.mark.parametrize("density", [0.0, 1.5])
def test_a_density_out_of_range_is_refused(row: type[Sparse], density: float) -> None:
    message = f"a density of {density}.* more than 0 and at most 1 \\(key 'merging#row#density'\\)"
    with pytest.raises(UserError, match=message):
        row(density)


def test_a_seed_is_taken_by_what_draws_and_by_nothing_else() -> None:
    assert Dare(0.3).seeded(7) == Dare(0.3, 7)
    assert all(row().seeded(7) == row() for name, row in ROWS.items() if name != "dare")
    assert [name for name, row in ROWS.items() if row().generator() is not None] == ["dare"]
