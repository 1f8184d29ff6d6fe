"""Outputs of an operator, each with a norm of its own, added up."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn as nn
from torch import Tensor

from shiftwise_mm.ops.batch_norms import (
    summed_batch_norms,
    summed_batch_norms_are_faster,
)

from .joining import is_plain

__all__ = ['add_normed']


def _trains(norm: nn.Module) -> bool:
    """Whether it is a batch-norm that normalises by what it is given."""
    return (is_plain(norm, nn.BatchNorm2d) and norm.training
            and norm.affine and norm.running_mean is not None
            and norm.momentum is not None)


def add_normed(base: Tensor, outputs: Sequence[Tensor],
               norms: Sequence[nn.Module]) -> Tensor:
    r""":math:`x + \sum_s \mathrm{norm}_s(y_s)`, as the modules compute it.

    Batch-norms in training are one kernel where that is faster; their running
    statistics change as ever.

    Args:
        base (Tensor): :math:`x`, ``(B, C, H, W)``.
        outputs (Sequence[Tensor]): :math:`y_s`, of the same shape.
        norms (Sequence[nn.Module]): One for each.

    Returns:
        Tensor: ``(B, C, H, W)``.
    """
    if all(map(_trains, norms)) and base.dtype == torch.float32 and \
            summed_batch_norms_are_faster(*outputs):
        return _together(base, outputs, norms)
    first, *others = (norm(y) for norm, y in zip(norms, outputs, strict=True))
    return sum(others, first) + base


def _together(base: Tensor, outputs: Sequence[Tensor],
              norms: Sequence[nn.BatchNorm2d]) -> Tensor:
    affine = torch.stack([torch.stack([norm.weight, norm.bias])
                          for norm in norms])
    out, stats = summed_batch_norms(base, tuple(outputs), affine,
                                    tuple(norm.eps for norm in norms))
    count = base.numel() // base.shape[1]
    with torch.no_grad():
        for norm, (mean, variance) in zip(norms, stats, strict=True):
            norm.num_batches_tracked.add_(1)
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(variance * (count / (count - 1)),
                                   norm.momentum)
    return out
