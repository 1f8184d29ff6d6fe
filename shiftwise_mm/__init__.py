"""Shift-wise large-kernel backbones for MMDetection and MMSegmentation.

Importing the package defines things and makes two registrations: mmengine
resolves ``_base_ = 'shiftwise_mm::...'`` only for packages that it knows, and
torch loads checkpoints of mmengine only with the names in
:mod:`shiftwise_mm.checkpoint.safe_globals`.
"""
from mmengine.config.utils import MODULE2PACKAGE

from .checkpoint.safe_globals import register_safe_globals
from .version import __version__

__all__ = ['__version__']

MODULE2PACKAGE['shiftwise_mm'] = 'shiftwise_mm'
register_safe_globals()
