"""The published composition of the shift-wise convolution, for counters."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch.nn as nn
from torch import Tensor

from shiftwise_mm.models.layers import ShiftWiseConv2d
from shiftwise_mm.ops import ShiftSpec

__all__ = ['published_composition', 'shift_additions', 'shift_layers']


def shift_layers(model: nn.Module) -> list[ShiftWiseConv2d]:
    """The shift-wise convolutions in ``model``."""
    return [m for m in model.modules() if isinstance(m, ShiftWiseConv2d)]


def shift_additions(spec: ShiftSpec, shape: Sequence[int]) -> int:
    r"""Additions of one shift-add.

    An element of ``out_H`` and of ``out_V`` is a sum of ``R k`` terms, one of
    ``out_I`` of ``R``; terms from outside the borders are counted:

    .. math::
        B C H W \, (2 (R k - 1) + R - 1)

    Args:
        spec (ShiftSpec): Sizes ``C``, ``k`` and ``R``.
        shape (Sequence[int]): ``(B, C, H, W)`` of an output.
    """
    batch, channels, height, width = shape
    terms = {'h': spec.num_taps, 'v': spec.num_taps, 'i': 1}
    return batch * channels * height * width * sum(
        spec.num_reps * terms[name] - 1 for name in spec.outputs)


def _composed(layer: ShiftWiseConv2d, additions: list[int],
              x: Tensor) -> tuple[Tensor, ...]:
    """Runs the paths one by one; stands in for the shift-add behind them."""
    shape = [int(size) for size in x.shape]
    # While torch traces, what comes from a shape is a tensor.
    additions.append(int(shift_additions(layer.spec, shape)))
    y = sum(conv(x) for conv in layer.convs)
    # A counter of multiply-adds asks for nothing but the shape.
    edge = layer.small_kernel // 2
    out = y[:, ::layer.spec.num_taps, edge:edge + shape[2],
            edge:edge + shape[3]]
    return (out, ) * len(layer.spec.outputs)


@contextmanager
def published_composition(model: nn.Module) -> Iterator[list[int]]:
    """Lets every shift-wise convolution run as published, for a counter.

    ``P`` grouped convolutions ``n_rep -> n_rep*k`` with padding ``N-1``, each
    a call of its own, whatever form the layers have; then shift-add (arXiv
    2401.12736). **The values are wrong meanwhile**: something cheap of the
    right shape takes the place of shift-add, and its additions are noted.

    Args:
        model (nn.Module): Any model, not deployed.

    Yields:
        list[int]: Grows by :func:`shift_additions` with each call of a layer.

    Raises:
        ValueError: If a layer is deployed: it holds no small convolutions.
    """
    layers = shift_layers(model)
    if any(layer.deploy for layer in layers):
        raise ValueError('a deployed ShiftWiseConv2d holds no small '
                         'convolutions; build the model with deploy=False')
    additions: list[int] = []
    try:
        for layer in layers:
            layer.operator = partial(_composed, layer, additions)
        yield additions
    finally:
        for layer in layers:
            layer.__dict__.pop('operator', None)
