"""How many units each layer keeps."""
from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ['erk_counts', 'snip_counts', 'uniform_counts']


def uniform_counts(units: Sequence[int], density: float) -> list[int]:
    """The same density in each layer.

    Args:
        units (Sequence[int]): Units of a path, by layer.
        density (float): Share that is kept, in (0, 1].

    Returns:
        list[int]: How many units of a path are kept, by layer.
    """
    return [_rounded(density * count) for count in units]


def erk_counts(shapes: Sequence[Sequence[int]], units: Sequence[int],
               density: float) -> list[int]:
    r"""Erdos-Renyi-kernel: the smaller a weight, the denser.

    The density of layer :math:`l` with a weight of shape :math:`s` is

    .. math::
        d_l = \min(1, \epsilon \sum_i s_i / \prod_i s_i)

    with :math:`\epsilon` such that the whole has the density asked for.
    Source: RigL (arXiv 1911.11134), as in the published code.

    Args:
        shapes (Sequence[Sequence[int]]): Of the weight of a path, by layer.
        units (Sequence[int]): Units of a path, by layer.
        density (float): Of the whole, in (0, 1].

    Returns:
        list[int]: How many units of a path are kept, by layer.
    """
    raw = [sum(shape) / math.prod(shape) for shape in shapes]
    dense: set[int] = set()
    while len(dense) < len(raw):
        sparse = [i for i in range(len(raw)) if i not in dense]
        left = density * sum(units) - sum(units[i] for i in dense)
        epsilon = left / sum(raw[i] * units[i] for i in sparse)
        highest = max(sparse, key=lambda i: raw[i])
        if epsilon * raw[highest] <= 1:
            break
        dense.add(highest)
    return [count if i in dense else _rounded(epsilon * raw[i] * count)
            for i, count in enumerate(units)]


def snip_counts(scores: Sequence[Tensor], density: float) -> list[int]:
    """One threshold over the scores of all layers gives each its density.

    Args:
        scores (Sequence[Tensor]): ``(P, U)`` by layer, see
            :func:`~shiftwise_mm.sparsity.snip.snip_scores`.
        density (float): Of the whole, in (0, 1].

    Returns:
        list[int]: How many units of a path are kept, by layer: those above
        the threshold, averaged over the paths.
    """
    sizes = [score.numel() for score in scores]
    every = torch.cat([score.flatten() for score in scores])
    kept = torch.zeros(len(every), dtype=torch.bool, device='cpu')
    order = every.argsort(descending=True, stable=True)
    kept[order[:_rounded(density * len(every))]] = True
    return [_rounded(int(part.sum()) / len(score))
            for part, score in zip(kept.split(sizes), scores, strict=True)]


def _rounded(value: float) -> int:
    """The nearest integer, a half upwards."""
    return math.floor(value + .5)
