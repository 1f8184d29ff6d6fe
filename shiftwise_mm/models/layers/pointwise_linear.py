"""The pointwise layers of the blocks."""
from __future__ import annotations

import torch.nn as nn
from torch import Tensor

from shiftwise_mm.ops.linear import linear, stored_for_inference

__all__ = ['PointwiseLinear']


class PointwiseLinear(nn.Linear):
    r"""``nn.Linear``, :math:`x W^T + b`, by the faster library on CPUs.

    See :func:`shiftwise_mm.ops.linear.linear`. Same parameters, same results
    up to rounding.
    """

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)

    def store_for_inference(self) -> None:
        """Keeps the weight as CPUs read it fastest: the same values and
        shape, in another order in memory.
        """
        self.weight.data = stored_for_inference(self.weight.data)
