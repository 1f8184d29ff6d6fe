"""Folding of what follows a convolution linearly into the convolution."""
from __future__ import annotations

import torch
import torch.nn as nn
from torch import Tensor

from shiftwise_mm.ops import ShiftSpec

__all__ = ['affine_of', 'fold_conv', 'fold_strips']


def affine_of(norm: nn.Module, channels: int) -> tuple[Tensor, Tensor]:
    r"""Scale and offset by channel of a norm in eval mode.

    .. math::
        s = \gamma / \sqrt{\sigma^2 + \epsilon}, \quad o = \beta - s \mu

    Args:
        norm (nn.Module): A batch-norm with running statistics, or
            ``nn.Identity``.
        channels (int): ``C``.

    Returns:
        tuple[Tensor, Tensor]: ``s`` and ``o``, float64 ``(C,)``.

    Raises:
        TypeError: If the norm has no running statistics.
    """
    if isinstance(norm, nn.Identity):
        return (torch.ones(channels, dtype=torch.float64),
                torch.zeros(channels, dtype=torch.float64))
    if getattr(norm, 'running_var', None) is None:
        raise TypeError('switch_to_deploy folds norms with running statistics '
                        f'(batch-norms), got {type(norm).__name__}')
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    offset = -norm.running_mean.double() * scale
    if norm.bias is not None:
        offset = offset + norm.bias.double()
    return scale, offset


@torch.no_grad()
def fold_conv(conv: nn.Conv2d, scale: Tensor, offset: Tensor) -> nn.Conv2d:
    """The convolution that computes ``scale * conv(x) + offset``.

    Args:
        conv (nn.Conv2d): Any convolution with zero padding.
        scale, offset (Tensor): ``(out_channels,)``.

    Returns:
        nn.Conv2d: A new one, with bias, of the same dtype and device.
    """
    folded = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride,
        conv.padding, conv.dilation, conv.groups, bias=True,
        device=conv.weight.device, dtype=conv.weight.dtype)
    scale, offset = scale.to(conv.weight.device), offset.to(conv.weight.device)
    folded.weight.copy_(conv.weight.double() * scale.view(-1, 1, 1, 1))
    bias = 0 if conv.bias is None else conv.bias.double() * scale
    folded.bias.copy_(bias + offset)
    return folded


@torch.no_grad()
def fold_strips(strips: dict[str, Tensor], norms: dict[str, nn.Module],
                spec: ShiftSpec, identity: bool
                ) -> tuple[Tensor, Tensor, Tensor]:
    r"""Two strips and a bias out of three strips with a norm behind each.

    .. math::
        K_H = s_H\,strip_H + \mathrm{centre}(s_I\,strip_I + \delta), \quad
        K_V = s_V\,strip_V, \quad b = \sum_o offset_o

    with the affine :func:`affine_of` of each norm; :math:`\delta` is the
    identity, if asked for.

    Args:
        strips (dict[str, Tensor]): Depthwise kernels of the outputs ``'h'``
            ``(C, 1, N, L)``, ``'v'`` ``(C, 1, L, N)`` and ``'i'``
            ``(C, 1, N, N)``.
        norms (dict[str, nn.Module]): The norm behind each.
        spec (ShiftSpec): Sizes; column 0 of the strips sits at ``-(M // 2)``.
        identity (bool): Whether the input is added to the outputs.

    Returns:
        tuple[Tensor, Tensor, Tensor]: ``K_H``, ``K_V`` and the bias ``(C,)``,
        float64.
    """
    folded, bias = {}, 0
    for name, strip in strips.items():
        scale, offset = (t.to(strip.device)
                         for t in affine_of(norms[name], len(strip)))
        folded[name] = strip.double() * scale.view(-1, 1, 1, 1)
        bias = bias + offset
    n, first = spec.small_kernel, spec.large_kernel // 2
    centre = folded['h'][..., first - n // 2:first + n // 2 + 1]
    centre += folded['i']
    if identity:
        centre[..., n // 2, n // 2] += 1
    return folded['h'], folded['v'], bias
