r"""The exact strip form: shift-add without its k-fold intermediate.

Because convolution and shift-add are linear, ``out_H`` is one depthwise
convolution of ``x`` with an ``N x (kN)`` strip whose columns
``iN .. iN+N-1`` hold the weights of the taps at offset ``o_i``, summed over
the repetitions; column 0 sits at offset ``-(M // 2)``. ``out_V`` is its
transpose, ``out_I`` one ``N x N`` kernel.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .spec import ShiftSpec

__all__ = ['strip_weights', 'strip_conv']


def _placement(spec: ShiftSpec, name: str, like: Tensor) -> Tensor:
    """How often tap ``j`` lies at position ``i``: ``(C, positions, k)``.

    A matrix product with it builds the strip, and its transpose the gradient:
    deterministic both ways, on every device.
    """

    def make() -> Tensor:
        if name == 'i':
            positions = spec.identity_tap.unsqueeze(-1)  # (R, C, 1)
        else:
            positions = spec.perm_h if name == 'h' else spec.perm_v
        count = F.one_hot(positions, spec.num_taps).sum(0)  # (C, pos, k)
        return count.to(like.device, like.dtype)

    return spec.cached(('strip', name, like.device, like.dtype), make)


def strip_weights(weight: Tensor, spec: ShiftSpec, name: str) -> Tensor:
    """The kernel of one output's depthwise convolution.

    Args:
        weight (Tensor): Small kernels ``(C*k, 1, N, N)``.
        spec (ShiftSpec): Sizes and tables.
        name (str): ``'h'``, ``'v'`` or ``'i'``.

    Returns:
        Tensor: ``(C, 1, N, k*N)`` for ``'h'``, ``(C, 1, k*N, N)`` for
        ``'v'``, ``(C, 1, N, N)`` for ``'i'``.
    """
    c, k, n = spec.channels, spec.num_taps, spec.small_kernel
    placed = torch.bmm(_placement(spec, name, weight),
                       weight.reshape(c, k, n * n))
    placed = placed.view(c, -1, n, n)  # (C, position, row, column)
    if name == 'h':
        placed = placed.transpose(1, 2)
    return placed.reshape(c, 1, n, -1) if name == 'h' else placed.reshape(
        c, 1, -1, n)


def _conv_along(x: Tensor, weight: Tensor, before: int, dim: int) -> Tensor:
    """Depthwise convolution, the kernel's first place on ``dim`` at -before.

    One symmetric padding and then the part wanted: faster than padding first.
    """
    padding = [length // 2 for length in weight.shape[2:]]
    padding[dim - 2] = max(before, weight.shape[dim] - 1 - before)
    out = F.conv2d(x, weight, padding=padding, groups=x.shape[1])
    return out.narrow(dim, padding[dim - 2] - before, x.shape[dim])


def strip_conv(x: Tensor, weight: Tensor, spec: ShiftSpec,
               name: str) -> Tensor:
    """Depthwise convolution with a kernel of :func:`strip_weights`.

    Args:
        x (Tensor): ``(B, C, H, W)``.
        weight (Tensor): The kernel of output ``name``.
        spec (ShiftSpec): Sizes and tables.
        name (str): ``'h'``, ``'v'`` or ``'i'``.

    Returns:
        Tensor: ``(B, C, H, W)``.
    """
    before = spec.large_kernel // 2
    if name == 'i':
        return F.conv2d(x, weight, padding=spec.small_kernel // 2,
                        groups=x.shape[1])
    if name == 'h' and x.device.type == 'cpu':
        # oneDNN is many times faster with tall kernels than with wide ones,
        # which pays for the transposes.
        return _conv_along(
            x.transpose(2, 3).contiguous(), weight.transpose(2, 3), before,
            2).transpose(2, 3)
    return _conv_along(x, weight, before, 2 if name == 'v' else 3)
