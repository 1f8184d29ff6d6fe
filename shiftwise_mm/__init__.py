"""Shift-wise large-kernel backbones for MMDetection and MMSegmentation.

Importing the package defines things and makes two registrations
(:func:`register`): mmengine resolves ``_base_ = 'shiftwise_mm::...'`` only for
packages that it knows, and torch loads checkpoints of mmengine only with the
names in :mod:`shiftwise_mm.checkpoint.safe_globals`.
"""
import sys
from importlib import import_module

from .stack import register_packages
from .version import __version__

__all__ = ['__version__', 'build_backbone', 'list_models', 'register']

# Imported when first asked for: they need all of the models.
_LAZY = dict(build_backbone='zoo', list_models='zoo')
# Programs that register by themselves, those that need it: a list of commands
# needs neither torch nor mmengine, and the doctor starts whatever is broken.
_COMMANDS = {'shiftwise', 'shiftwise_mm', 'shiftwise_mm.doctor',
             'shiftwise_mm.diagnosis'}


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'.{_LAZY[name]}', __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


def register() -> None:
    """Makes the package known to mmengine, and safe names to torch.

    Done by the import already, but in the commands of this package.

    Raises:
        ModuleNotFoundError: If mmengine is not installed; says how to get it.
    """
    # First of all: everything else imports mmengine without such a message.
    register_packages()

    from .checkpoint.safe_globals import register_safe_globals
    register_safe_globals()


def _program(words: list[str]) -> str:
    """What an interpreter was told to run: the stem of a file, or a module.

    By what it was started with, for others change ``sys.argv``.
    """
    for i, word in enumerate(words[1:], 1):
        if word == '-m':
            return ''.join(words[i + 1:i + 2])
        if not word.startswith('-'):
            return word.replace('\\', '/').rpartition('/')[2].removesuffix(
                '.exe')
    return ''


if _program(sys.orig_argv) not in _COMMANDS:
    register()
