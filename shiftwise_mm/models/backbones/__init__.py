"""Backbones, one file each."""
from .convnext import ConvNeXt
from .shiftwise_net import ShiftWiseNet
from .slak import SLaK
from .unireplknet import UniRepLKNet

__all__ = ['ConvNeXt', 'SLaK', 'ShiftWiseNet', 'UniRepLKNet']
