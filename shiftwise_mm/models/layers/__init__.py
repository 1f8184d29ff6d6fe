"""Layers: the shift-wise convolution and what its blocks are made of."""
from .depthwise_to_shiftwise import DepthwiseToShiftWise
from .norm import GRN, LayerNorm2d, NCHWtoNHWC, NHWCtoNCHW, SEModule
from .shiftwise_conv2d import ShiftWiseConv2d

__all__ = [
    'DepthwiseToShiftWise', 'GRN', 'LayerNorm2d', 'NCHWtoNHWC', 'NHWCtoNCHW',
    'SEModule', 'ShiftWiseConv2d'
]
