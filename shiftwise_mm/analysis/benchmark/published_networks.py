"""UniRepLKNet and SLaK computed as their published code composes them.

Parameters and results are those of our networks; the order of operations
and the layouts are the published ones: a channels-first layer norm written
out, permutes around the pointwise layers, GRN and SE in separate steps, long
kernels as plain convolutions.
"""
from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from shiftwise_mm.models.layers.blocks import UniRepBlock
from shiftwise_mm.models.layers.decomposed_conv2d import DecomposedConv2d
from shiftwise_mm.models.layers.norm import LayerNorm2d
from shiftwise_mm.models.layers.pointwise_linear import PointwiseLinear

__all__ = ['compose_as_published']


class _LayerNorm(nn.Module):
    """Channels-first layer norm, step by step."""

    def __init__(self, norm: LayerNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class _UniRepBlock(nn.Module):
    """A block of UniRepLKNet: every step on its own."""

    def __init__(self, block: UniRepBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        block = self.block
        y = block.norm(block.mixer(x))
        gate = F.adaptive_avg_pool2d(y, (1, 1))
        gate = block.se.up(F.relu(block.se.down(gate)))
        y = y * torch.sigmoid(gate).view(-1, gate.shape[1], 1, 1)
        linear1, linear2 = block.pwconv1[1], block.pwconv2[0]
        y = F.gelu(F.linear(y.permute(0, 2, 3, 1), linear1.weight,
                            linear1.bias))
        grn = block.act[1]
        norm = torch.norm(y, p=2, dim=(1, 2), keepdim=True)
        norm = norm / (norm.mean(dim=-1, keepdim=True) + grn.eps)
        y = (grn.gamma * norm + 1) * y
        if grn.beta is not None:
            y = y + grn.beta
        y = F.linear(y, linear2.weight, linear2.bias).permute(0, 3, 1, 2)
        if len(block.pwconv2) > 2:
            y = block.pwconv2[2](y)
        if block.gamma is not None:
            y = block.gamma.view(1, -1, 1, 1) * y
        return x + block.drop_path(y)


class _Decomposed(nn.Module):
    """SLaK's three convolutions, each padded by itself."""

    def __init__(self, layer: DecomposedConv2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        out = 0
        for name in 'vhi':
            weight = getattr(self.layer, f'conv_{name}').weight
            padding = [length // 2 for length in weight.shape[2:]]
            part = F.conv2d(x, weight, padding=padding, groups=x.shape[1])
            out = out + getattr(self.layer, f'norm_{name}')(part)
        return out


def compose_as_published(network: nn.Module) -> nn.Module:
    """Changes a network of ours, in place, to the published composition.

    Parameters stay the same objects. ``DecomposedConv2d`` must have form
    ``'large'`` and not be deployed.

    Args:
        network (nn.Module): UniRepLKNet or SLaK.

    Returns:
        nn.Module: ``network``.
    """
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LayerNorm2d):
                setattr(module, name, _LayerNorm(child))
            elif isinstance(child, UniRepBlock):
                setattr(module, name, _UniRepBlock(child))
            elif isinstance(child, PointwiseLinear):
                linear = nn.Linear(1, 1, device='meta')
                linear.weight, linear.bias = child.weight, child.bias
                setattr(module, name, linear)
            elif isinstance(child, DecomposedConv2d):
                setattr(module, name, _Decomposed(child))
    return network
