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

        Not in files: a state dict has the usual order.
        """
        self.weight.data = stored_for_inference(self.weight.data)

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str,
                            keep_vars: bool) -> None:
        """State dicts hold contiguous weights: some formats take no others."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        weight = destination.get(f'{prefix}weight')
        if weight is not None and not keep_vars:
            destination[f'{prefix}weight'] = weight.contiguous()
