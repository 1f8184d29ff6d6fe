"""Layers: the shift-wise convolution and what its blocks are made of."""
from .norm import GRN, LayerNorm2d, NCHWtoNHWC, NHWCtoNCHW, SEModule
from .shiftwise_conv2d import ShiftWiseConv2d

__all__ = [
    'GRN', 'LayerNorm2d', 'NCHWtoNHWC', 'NHWCtoNCHW', 'SEModule',
    'ShiftWiseConv2d'
]
