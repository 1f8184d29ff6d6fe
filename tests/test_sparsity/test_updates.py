"""What an update drops and grows."""
import pytest
import torch

from shiftwise_mm.sparsity.updates import (
    common_flags,
    drop_and_grow,
    random_flags,
)


def indices(flags):
    return flags.nonzero().flatten().tolist()


def flags_of(units, kept):
    flags = torch.zeros(units, dtype=torch.bool)
    flags[kept] = True
    return flags


def test_random_flags():
    state = torch.get_rng_state()
    generator = torch.Generator().manual_seed(5)
    drawn = [random_flags(50, 20, generator) for _ in range(20)]
    assert {int(flags.sum()) for flags in drawn} == {20}
    assert len({tuple(indices(flags)) for flags in drawn}) == 20
    share = torch.stack(drawn).float().mean(0)
    assert share.min() > 0 and share.max() < 1
    again = random_flags(50, 20, torch.Generator().manual_seed(5))
    assert torch.equal(again, drawn[0])
    assert torch.equal(torch.get_rng_state(), state)
    assert indices(random_flags(4, 0, generator)) == []
    assert indices(random_flags(3, 3, generator)) == [0, 1, 2]


def test_the_least_are_dropped_and_the_first_grown():
    flags = flags_of(8, [0, 2, 3, 5, 6])
    magnitude = torch.tensor([5., 0, 1, 4, 0, 2, 3, 0])
    growth = torch.tensor([9., 1, 9, 9, 3, 9, 9, 2])
    assert indices(drop_and_grow(flags, magnitude, growth, 2)) == [
        0, 3, 4, 6, 7]
    assert indices(flags) == [0, 2, 3, 5, 6]  # not changed in place
    assert torch.equal(drop_and_grow(flags, magnitude, growth, 0), flags)


def test_what_was_dropped_is_grown_only_where_others_are_too_few():
    flags = flags_of(5, [0, 1, 2, 3])
    magnitude, growth = torch.tensor([[1., 2, 3, 4, 0], [5., 6, 7, 8, 0]])
    # One is off: it is grown, and of those dropped the first two.
    assert indices(drop_and_grow(flags, magnitude, growth, 3)) == [1, 2, 3, 4]
    assert indices(drop_and_grow(flags, magnitude, -growth, 3)) == [0, 1, 3, 4]
    assert indices(drop_and_grow(flags, magnitude, growth, 4)) == [1, 2, 3, 4]


@pytest.mark.parametrize('count', [0, 1, 3, 6])
def test_all_kept(count):
    flags = torch.ones(6, dtype=torch.bool)
    assert drop_and_grow(flags, torch.rand(6), torch.rand(6), count).all()


@pytest.mark.parametrize('seed', range(5))
def test_the_number_stays(seed):
    generator = torch.Generator().manual_seed(seed)
    flags = torch.rand(60, generator=generator) < .4
    kept = int(flags.sum())
    for count in (1, kept // 2, kept):
        magnitude = torch.rand(60, generator=generator) * flags
        changed = drop_and_grow(flags, magnitude,
                                torch.rand(60, generator=generator), count)
        assert changed.sum() == kept
        assert (flags & ~changed).sum() == min(count, 60 - kept)


def test_common_flags():
    flags = torch.stack([flags_of(6, [0, 1, 2]), flags_of(6, [0, 3, 4])])
    magnitude = torch.tensor([[1., 9, 2, 0, 0, 0], [3., 0, 0, 5, 1, 0]])
    assert indices(common_flags(flags, magnitude)) == [0, 1, 3]


def test_of_units_just_grown_those_of_more_paths_are_kept():
    flags = torch.stack([flags_of(5, [1, 3, 4]), flags_of(5, [0, 2, 4])])
    magnitude = torch.zeros(2, 5)
    magnitude[0, 3] = 1
    assert indices(common_flags(flags, magnitude)) == [0, 3, 4]
