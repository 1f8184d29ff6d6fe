"""The stem of overlapping convolutions, as UniRepLKNet has it."""
from __future__ import annotations

import torch.nn as nn
from torch import Tensor

from shiftwise_mm.ops.norm_gelu import norm_gelu_, norm_gelu_is_faster

from .joining import may_be_joined
from .norm import LayerNorm2d

__all__ = ['ConvStem']


class ConvStem(nn.Sequential):
    r"""Two 3x3 convolutions to a half or a quarter of each side.

    .. math::
        \mathrm{LN}(\mathrm{conv}(\mathrm{GELU}(\mathrm{LN}(
        \mathrm{conv}(x)))))

    The first has stride 2 and half of the channels. Source: UniRepLKNet
    (arXiv 2311.15599), whose names its layers have.

    Args:
        in_channels (int): Channels of the input.
        dim (int): Channels of the output.
        stride (int): 2 or 4, of both convolutions together.

    Shape:
        ``(B, in_channels, H, W)`` in, ``(B, dim, H/stride, W/stride)``,
        rounded up, out.
    """

    def __init__(self, in_channels: int, dim: int, stride: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, dim // 2, 3, stride=2, padding=1),
            LayerNorm2d(dim // 2), nn.GELU(),
            nn.Conv2d(dim // 2, dim, 3, stride=stride // 2, padding=1),
            LayerNorm2d(dim))

    def forward(self, x: Tensor) -> Tensor:
        conv, norm, act, *rest = self
        x = conv(x)
        # In inference the widest tensor of a network stays where it is.
        if may_be_joined(norm, LayerNorm2d) and \
                may_be_joined(act, nn.GELU) and \
                act.approximate == 'none' and norm_gelu_is_faster(x):
            x = norm_gelu_(x, norm.weight, norm.bias, norm.eps)
        else:
            x = act(norm(x))
        for layer in rest:
            x = layer(x)
        return x
