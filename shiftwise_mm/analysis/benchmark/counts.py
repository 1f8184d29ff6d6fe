"""The fewest multiply-adds and bytes of a piece of work, by formula."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn as nn
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from shiftwise_mm.ops import ShiftSpec

__all__ = ['Work', 'conv_work', 'network_work', 'shift_work']

FLOAT = 4  # bytes


@dataclass(frozen=True)
class Work:
    """Multiply-adds and bytes of one call.

    Attributes:
        macs (int): Multiply-adds.
        bytes (int): Bytes read and written.
    """

    macs: int
    bytes: int


def _pairs(length: int, first: int, kernel: int) -> int:
    """Products along one axis: those with the padding are none.

    A kernel whose places lie at ``first .. first + kernel - 1`` on a row of
    ``length``.
    """
    return sum(max(length - abs(first + a), 0) for a in range(kernel))


def conv_work(spec: ShiftSpec, shape: Sequence[int],
              outputs: Sequence[str], *, backward: bool = False,
              density: float = 1.) -> Work:
    r"""Shift-wise convolution as depthwise strips, each tensor touched once.

    An output ``h`` or ``v`` takes one product for each place of its
    ``N x kN`` strip inside the image, ``i`` for each of its ``N x N``; with
    a density below 1 for that share of them. Bytes forward: ``x``, the
    outputs and the small kernels, once each. Backward: twice the products;
    ``x``, the gradients of the outputs, that of ``x`` and twice the kernels.

    Args:
        spec (ShiftSpec): Sizes.
        shape (Sequence[int]): ``(B, C, H, W)``.
        outputs (Sequence[str]): The outputs computed.
        backward (bool): Whether the gradients are in the work as well.
        density (float): Share of the taps that are kept.
    """
    batch, channels, height, width = shape
    n, before = spec.small_kernel, spec.large_kernel // 2
    places = {
        'h': _pairs(height, -(n // 2), n) *
        _pairs(width, -before, spec.strip_length),
        'v': _pairs(width, -(n // 2), n) *
        _pairs(height, -before, spec.strip_length),
        'i': _pairs(height, -(n // 2), n) * _pairs(width, -(n // 2), n),
    }
    macs = int(batch * channels * density * sum(places[o] for o in outputs))
    plane = batch * channels * height * width
    weight = channels * spec.num_taps * n * n
    count = len(outputs)
    if not backward:
        return Work(macs, FLOAT * (plane * (1 + count) + weight))
    return Work(3 * macs, FLOAT * (plane * (3 + 2 * count) + 3 * weight))


def shift_work(spec: ShiftSpec, shape: Sequence[int], outputs: Sequence[str],
               *, backward: bool = False) -> Work:
    """Shift-add alone: no multiply-adds, ``y`` and the outputs once each.

    Args:
        spec (ShiftSpec): Sizes.
        shape (Sequence[int]): ``(B, C, H, W)`` of an output.
        outputs (Sequence[str]): The outputs computed.
        backward (bool): Whether the gradient of ``y`` is in it as well.
    """
    batch, channels, height, width = shape
    edge = spec.small_kernel - 1
    y = batch * channels * spec.num_taps * (height + edge) * (width + edge)
    once = y + batch * channels * height * width * len(outputs)
    return Work(0, FLOAT * once * (2 if backward else 1))


class _Traffic(TorchDispatchMode):
    """Bytes of the tensors that the operations take and give; views none."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        given = [a for a in _flat(args) if isinstance(a, Tensor)]
        made = [a for a in _flat((out, )) if isinstance(a, Tensor)]
        if not function.is_view:
            self.bytes += sum(t.numel() * t.element_size()
                              for t in (*given, *made))
        return out


def _flat(values):
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from _flat(value)
        else:
            yield value


def network_work(network: nn.Module, image: Tensor) -> Work:
    """One forward pass of a network, counted by running it.

    Multiply-adds of convolutions and matrix products (torch's
    ``FlopCounterMode``, halved; padding included); bytes as if every
    operation read its tensors and wrote its results once.

    Args:
        network (nn.Module): In the mode and form to count.
        image (Tensor): Its input.
    """
    with FlopCounterMode(display=False) as flops, _Traffic() as traffic:
        network(image)
    return Work(flops.get_total_flops() // 2, traffic.bytes)
