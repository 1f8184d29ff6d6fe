"""Stages that stand in for levels of given strides."""
import itertools

import pytest

from shiftwise_mm.swap import SwapError
from shiftwise_mm.swap.stages import assign_stages


@pytest.mark.parametrize(('levels', 'stages', 'strides'), [
    ((4, 8, 16, 32), (0, 1, 2, 3), (4, 2, 2, 2)),
    ((8, 16, 32), (1, 2, 3), (4, 2, 2, 2)),
    ((32, ), (3, ), (4, 2, 2, 2)),
    ((8, 8), (2, 3), (4, 2, 1, 1)),  # PSPNet with an FCN head, d8
    ((4, 8, 8, 8), (0, 1, 2, 3), (4, 2, 1, 1)),
    ((4, 8), (0, 3), (4, 2, 1, 1)),  # DeepLabV3+: the last stage stays
    ((4, 16), (0, 3), (4, 2, 2, 1)),
    ((16, ), (3, ), (4, 2, 2, 1)),
    ((2, 4, 8), (0, 1, 3), (2, 2, 2, 1)),
    ((2, 4, 8, 16), (0, 1, 2, 3), (2, 2, 2, 2)),
], ids=str)
def test_known_levels(levels, stages, strides):
    assert assign_stages(levels) == (stages, strides)


def test_every_way_of_a_backbone_is_found_again():
    """What four stages can give, they are made to give."""
    for steps in itertools.product((4, 2), *[(2, 1)] * 3):
        reached = list(itertools.accumulate(steps, lambda a, b: a * b))
        for count in range(1, 5):
            for stages in itertools.combinations(range(4), count):
                wanted = [reached[stage] for stage in stages]
                if stages[-1] != 3:
                    continue
                found, strides = assign_stages(wanted)
                product = list(itertools.accumulate(
                    strides, lambda a, b: a * b))
                assert [product[stage] for stage in found] == wanted
                assert found[-1] == 3
                assert list(found) == sorted(set(found))


@pytest.mark.parametrize('levels', [
    (16, 16, 16, 16), (1, 2, 4), (64, ), (4, 8, 16, 32, 64), (8, 16, 64)],
    ids=str)
def test_other_levels_are_refused_by_their_strides(levels):
    with pytest.raises(SwapError, match=', '.join(map(str, levels))):
        assign_stages(levels)
