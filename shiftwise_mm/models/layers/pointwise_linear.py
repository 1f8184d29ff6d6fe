"""The pointwise layers of the blocks."""
from __future__ import annotations

import torch.nn as nn
from torch import Tensor

from shiftwise_mm.ops.linear import linear

__all__ = ['PointwiseLinear']


class PointwiseLinear(nn.Linear):
    r"""``nn.Linear``, :math:`x W^T + b`, by the faster library on CPUs.

    See :func:`shiftwise_mm.ops.linear.linear`. Same parameters, same results
    up to rounding.
    """

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)
