"""Shift-wise large-kernel backbones for MMDetection and MMSegmentation.

Importing the package defines things and makes one registration: mmengine
resolves ``_base_ = 'shiftwise_mm::...'`` only for packages that it knows.
"""
from mmengine.config.utils import MODULE2PACKAGE

from .version import __version__

__all__ = ['__version__']

MODULE2PACKAGE['shiftwise_mm'] = 'shiftwise_mm'
