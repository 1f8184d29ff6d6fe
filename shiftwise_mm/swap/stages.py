"""Which stage of a four-stage backbone stands in for which level."""
from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, combinations, product
from math import log2
from operator import mul

from .names import SwapError

__all__ = ['assign_stages']

_USUAL = (4, 8, 16, 32)


def assign_stages(
        strides: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Stages for levels of given strides, and the strides that they need.

    The last level comes from the last stage, so that the whole backbone is
    trained. Of the ways that are left, the one whose stages differ least from
    the usual strides 4, 8, 16, 32 (sum of ``|log2|`` of the quotients) is
    taken, and of those the one with the latest stages.

    Args:
        strides (Sequence[int]): Stride of each level, not decreasing.

    Returns:
        tuple: Ascending stages, one a level, and the ``strides`` argument of
        the backbone, e.g. ``((0, 2, 3), (4, 2, 1, 1))`` for 4, 8, 8.

    Raises:
        SwapError: If no strides of the backbone give these levels.
    """
    ways = []
    for steps in product((4, 2), *[(2, 1)] * 3):
        reached = tuple(accumulate(steps, mul))
        cost = sum(abs(log2(a / b))
                   for a, b in zip(reached, _USUAL, strict=True))
        for stages in combinations(range(4), len(strides)):
            if stages[-1] == 3 and all(
                    reached[stage] == stride
                    for stage, stride in zip(stages, strides, strict=True)):
                ways.append((cost, [-stage for stage in stages], steps,
                             stages))
    if not ways:
        raise SwapError(
            f'levels of strides {", ".join(map(str, strides))} are used, '
            'which four stages (a stem of stride 2 or 4, then steps of 1 or '
            '2) cannot give')
    *_, steps, stages = min(ways)
    return stages, steps
