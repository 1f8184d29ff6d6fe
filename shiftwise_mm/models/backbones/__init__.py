"""Backbones, one file each."""
from .shiftwise_net import ShiftWiseNet

__all__ = ['ShiftWiseNet']
