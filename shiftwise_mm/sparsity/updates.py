"""Which units an update drops and which it grows: functions of flags."""
from __future__ import annotations

import torch
from torch import Tensor

__all__ = ['common_flags', 'drop_and_grow', 'random_flags']


def random_flags(units: int, count: int,
                 generator: torch.Generator) -> Tensor:
    """Bool ``(units,)`` with exactly ``count`` True, drawn at random."""
    flags = torch.zeros(units, dtype=torch.bool, device='cpu')
    flags[torch.randperm(units, generator=generator,
                         device='cpu')[:count]] = True
    return flags


def drop_and_grow(flags: Tensor, magnitude: Tensor, growth: Tensor,
                  count: int) -> Tensor:
    """Drops the units of least magnitude and grows as many others.

    What was just dropped is grown again, and so stays, only where fewer than
    ``count`` others are off.

    Args:
        flags (Tensor): Which units are kept, bool ``(U,)``.
        magnitude (Tensor): Of each unit, ``(U,)``.
        growth (Tensor): The larger, the sooner a unit is grown, ``(U,)``.
        count (int): How many are dropped, at most those that are kept.

    Returns:
        Tensor: Bool ``(U,)`` with as many True as before.
    """
    kept, free = flags.nonzero().flatten(), (~flags).nonzero().flatten()
    dropped = kept[magnitude[kept].argsort(stable=True)[:count]]
    candidates = torch.cat([
        part[growth[part].argsort(descending=True, stable=True)]
        for part in (free, dropped)
    ])
    changed = flags.clone()
    changed[dropped] = False
    changed[candidates[:count]] = True
    return changed


def common_flags(flags: Tensor, magnitude: Tensor) -> Tensor:
    """The units that all paths keep once they decide together.

    Those of largest magnitude summed over the paths; where that is the same,
    as of units just grown, those that more paths keep.

    Args:
        flags (Tensor): Which units each path keeps, bool ``(P, U)``, of each
            path as many.
        magnitude (Tensor): ``(P, U)``, 0 where a unit is off.

    Returns:
        Tensor: Bool ``(U,)`` with as many True as each path had.
    """
    # Stable sorts, from the least important key to the most important.
    order = flags.sum(0).argsort(descending=True, stable=True)
    order = order[magnitude.sum(0)[order].argsort(descending=True,
                                                  stable=True)]
    common = torch.zeros_like(flags[0])
    common[order[:int(flags[0].sum())]] = True
    return common
