"""Shift-wise large-kernel backbones for MMDetection and MMSegmentation.

Importing the package defines things and makes two registrations: mmengine
resolves ``_base_ = 'shiftwise_mm::...'`` only for packages that it knows, and
torch loads checkpoints of mmengine only with the names in
:mod:`shiftwise_mm.checkpoint.safe_globals`.
"""
from .stack import import_optional
from .version import __version__

__all__ = ['__version__']

# First of all: everything else imports mmengine without such a message.
import_optional('mmengine.config.utils', 'shiftwise_mm').MODULE2PACKAGE[
    'shiftwise_mm'] = 'shiftwise_mm'

from .checkpoint.safe_globals import register_safe_globals  # noqa: E402

register_safe_globals()
