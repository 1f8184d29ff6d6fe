"""The dilated re-parameterisation of UniRepLKNet."""
from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from .fold import affine_of
from .norm_cfg import build_norm

__all__ = ['DilatedReparamConv2d', 'BRANCHES']

# Kernel size and dilation of each branch beside a large kernel, as published.
BRANCHES = {
    5: ((3, 1), (3, 2)),
    7: ((5, 1), (3, 2), (3, 3)),
    9: ((5, 1), (5, 2), (3, 3), (3, 4)),
    11: ((5, 1), (5, 2), (3, 3), (3, 4), (3, 5)),
    13: ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5)),
    15: ((5, 1), (7, 2), (3, 3), (3, 5), (3, 7)),
    17: ((5, 1), (9, 2), (3, 4), (3, 5), (3, 7)),
}


class DilatedReparamConv2d(BaseModule):
    r"""Depthwise ``M x M`` convolution with dilated branches beside it.

    .. math::
        y = \mathrm{BN}(K * x) + \sum_b \mathrm{BN}_b(K_b *_{r_b} x)

    with the small kernels ``K_b`` and dilations ``r_b`` of :data:`BRANCHES`.
    A dilated kernel is a large one with zeros between, so that all of them
    merge into one convolution. Source: UniRepLKNet (arXiv 2311.15599); the
    names of the parameters are its published ones.

    Args:
        channels (int): ``C``.
        kernel_size (int): ``M``, a key of :data:`BRANCHES`.
        norm_cfg (dict): Norm layer behind each.

    Shape:
        ``(B, C, H, W)`` in, the same out.

    Raises:
        ValueError: If no branches are published for the kernel size.
    """

    def __init__(self, channels: int, kernel_size: int,
                 norm_cfg: dict = dict(type='BN')) -> None:
        super().__init__()
        if kernel_size not in BRANCHES:
            raise ValueError(f'kernel_size must be one of {tuple(BRANCHES)}, '
                             f'got {kernel_size!r}')
        self.kernel_size = kernel_size

        def depthwise(size: int, dilation: int = 1) -> nn.Conv2d:
            return nn.Conv2d(channels, channels, size, dilation=dilation,
                             padding=dilation * (size // 2), groups=channels,
                             bias=False)

        self.lk_origin = depthwise(kernel_size)
        self.origin_bn = build_norm(norm_cfg, channels)
        self._branches = []
        for size, dilation in BRANCHES[kernel_size]:
            name = f'k{size}_{dilation}'
            self.add_module(f'dil_conv_{name}', depthwise(size, dilation))
            self.add_module(f'dil_bn_{name}',
                            build_norm(norm_cfg, channels))
            self._branches.append(name)

    def _pairs(self):
        yield self.lk_origin, self.origin_bn
        for name in self._branches:
            yield (getattr(self, f'dil_conv_{name}'),
                   getattr(self, f'dil_bn_{name}'))

    def forward(self, x: Tensor) -> Tensor:
        return sum(norm(conv(x)) for conv, norm in self._pairs())

    @torch.no_grad()
    def merged(self) -> nn.Conv2d:
        """One convolution that computes the same in eval mode.

        Returns:
            nn.Conv2d: A new one, with bias, of the same dtype and device.

        Raises:
            TypeError: If a norm has no running statistics to fold.
        """
        origin = self.lk_origin
        kernel, bias = 0, 0
        for conv, norm in self._pairs():
            scale, offset = (t.to(conv.weight.device)
                             for t in affine_of(norm, conv.out_channels))
            part = conv.weight.double() * scale.view(-1, 1, 1, 1)
            kernel = kernel + _spread(part, conv.dilation[0],
                                      self.kernel_size)
            bias = bias + offset
        merged = nn.Conv2d(
            origin.in_channels, origin.out_channels, self.kernel_size,
            padding=self.kernel_size // 2, groups=origin.groups,
            device=origin.weight.device, dtype=origin.weight.dtype)
        merged.weight.copy_(kernel)
        merged.bias.copy_(bias)
        return merged


def _spread(kernel: Tensor, dilation: int, size: int) -> Tensor:
    """A dilated kernel as a plain one of ``size``, zeros between and around.

    ``(C, 1, s, s)`` in, ``(C, 1, size, size)`` out.
    """
    step = torch.zeros(1, 1, dilation, dilation, dtype=kernel.dtype,
                       device=kernel.device)
    step[..., 0, 0] = 1
    spread = F.conv_transpose2d(kernel, step, stride=dilation)
    reach = dilation * (kernel.shape[-1] - 1) + 1
    margin = (size - reach) // 2
    return F.pad(spread[..., :reach, :reach], (margin, ) * 4)
