"""How many units each layer keeps."""
import pytest
import torch

from shiftwise_mm.sparsity import erk_counts, snip_counts, uniform_counts


def test_uniform():
    assert uniform_counts([10, 5, 1, 7], .7) == [7, 4, 1, 5]
    assert uniform_counts([10, 5], 1.) == [10, 5]


def test_erk_by_hand():
    shapes, units = [(10, 1, 3, 3), (40, 1, 5, 5)], [10, 40]
    raw = [17 / 90, 51 / 1000]
    epsilon = .5 * 50 / (raw[0] * 10 + raw[1] * 40)
    # The first would be denser than dense: all of it, the rest to the other.
    assert epsilon * raw[0] > 1
    assert erk_counts(shapes, units, .5) == [10, 15]
    epsilon = .1 * 50 / (raw[0] * 10 + raw[1] * 40)
    assert erk_counts(shapes, units, .1) == [
        round(epsilon * raw[0] * 10), round(epsilon * raw[1] * 40)] == [2, 3]


@pytest.mark.parametrize('density', [.05, .3, .77, .95, 1.])
def test_erk_keeps_the_density_of_the_whole(density):
    shapes = [(n, 1, k, k) for n, k in ((64, 3), (500, 3), (30, 5), (900, 5))]
    units = [shape[0] for shape in shapes]
    counts = erk_counts(shapes, units, density)
    assert sum(counts) == pytest.approx(density * sum(units), abs=2)
    assert all(0 <= c <= u for c, u in zip(counts, units, strict=True))
    densities = [c / u for c, u in zip(counts, units, strict=True)]
    assert densities[0] >= densities[1] and densities[2] >= densities[3]
    assert density > .5 or densities[0] > 1.05 * densities[1]


def test_snip_by_hand():
    scores = [torch.tensor([[9., 1, 8], [7, 2, 0]]),
              torch.tensor([[3., 4, 5, 6], [0, 0, 0, 0]])]
    # The seven largest of fourteen: 9 8 7 6 5 4 3.
    assert snip_counts(scores, .5) == [2, 2]  # 3/2 and 4/2 a path
    assert snip_counts(scores, 3 / 14) == [2, 0]
    assert snip_counts(scores, 1.) == [3, 4]


def test_snip_with_ties_keeps_the_number():
    scores = [torch.zeros(1, 6), torch.zeros(1, 4)]
    assert sum(snip_counts(scores, .5)) == 5
