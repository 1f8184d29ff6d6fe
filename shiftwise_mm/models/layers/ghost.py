"""Which channels take part in the shift-wise operator."""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ['split_channels', 'permute_channels', 'GHOST_SEED', 'STYLES']

GHOST_SEED = 123  # of the published code; checkpoints depend on it
STYLES = ('unirep', 'slak')


def split_channels(channels: int, ghost_ratio: float,
                   style: str = 'unirep') -> tuple[Tensor, Tensor]:
    """Splits channels into those that are convolved and the ghosts.

    How many take part, follows the published code of the style:
    ``n_rep = int(C * (1 - ghost_ratio)) // 2 * 2`` for ``'unirep'``,
    ``n_rep = C - int(C * ghost_ratio)`` for ``'slak'``; all of them without
    ghosts. Which, comes from a numpy generator of its own (published
    checkpoints do not store it).

    Args:
        channels (int): ``C``.
        ghost_ratio (float): Share of the channels that pass unchanged, in
            [0, 1).
        style (str): ``'unirep'`` (published ``ShiftWise_v2``) or ``'slak'``
            (``ShiftWise_v1``).

    Returns:
        tuple[Tensor, Tensor]: Ascending int64 indices of the channels that
        take part, and of the ghosts.

    Raises:
        ValueError: If the style is unknown, or ``ghost_ratio`` is outside
            [0, 1) or leaves no channel.
    """
    if style not in STYLES:
        raise ValueError(f'style must be one of {STYLES}, got {style!r}')
    if not 0 <= ghost_ratio < 1:
        raise ValueError(f'ghost_ratio must be in [0, 1), got {ghost_ratio}')
    if ghost_ratio == 0:
        return (torch.arange(channels, device='cpu'),
                torch.empty(0, dtype=torch.int64, device='cpu'))
    if style == 'unirep':
        num_rep = int(channels * (1 - ghost_ratio)) // 2 * 2
    else:
        num_rep = channels - int(channels * ghost_ratio)
    if num_rep == 0:
        raise ValueError(f'ghost_ratio={ghost_ratio} leaves none of '
                         f'{channels} channels to convolve; it must leave at '
                         'least 2')
    ghost = np.random.RandomState(GHOST_SEED).choice(
        channels, channels - num_rep, replace=False)
    is_ghost = torch.zeros(channels, dtype=torch.bool, device='cpu')
    is_ghost[torch.from_numpy(ghost)] = True
    return ((~is_ghost).nonzero().flatten(), is_ghost.nonzero().flatten())


class _Permute(torch.autograd.Function):
    """A permutation of the channels; its gradient is the inverse one."""

    @staticmethod
    def forward(ctx, x: Tensor, order: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return x.index_select(1, order)

    @staticmethod
    def backward(ctx, grad: Tensor):
        order, = ctx.saved_tensors
        return grad.index_select(1, order.argsort()), None


def permute_channels(x: Tensor, order: Tensor) -> Tensor:
    """``x[:, order]`` for a permutation ``order`` of the channels.

    ``index_select`` alone would scatter its gradient, several times slower.
    """
    if torch.is_grad_enabled() and x.requires_grad:
        return _Permute.apply(x, order)
    return x.index_select(1, order)
