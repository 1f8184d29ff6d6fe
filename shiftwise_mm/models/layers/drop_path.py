"""Stochastic depth."""
from __future__ import annotations

import torch
import torch.nn as nn
from torch import Tensor

__all__ = ['DropPath']


class DropPath(nn.Module):
    """Zeroes the branch of a residual block for some samples of a batch.

    In training each sample is zeroed with probability ``p`` and divided by
    ``1 - p`` otherwise; else this is the identity. Source: stochastic depth,
    arXiv 1603.09382.

    Args:
        drop_prob (float): ``p``, in [0, 1). Defaults to 0.
    """

    def __init__(self, drop_prob: float = 0.) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_prob == 0:
            return x
        # In float32: half precision would move the probability.
        drawn = torch.rand(len(x), *(1, ) * (x.ndim - 1), device=x.device)
        kept = (drawn >= self.drop_prob).to(x.dtype)
        return x * (kept / (1 - self.drop_prob))

    def extra_repr(self) -> str:
        return f'drop_prob={self.drop_prob}'
