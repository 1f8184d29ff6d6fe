"""Shift-wise large-kernel backbones for MMDetection and MMSegmentation.

Importing the package defines things and makes two registrations: mmengine
resolves ``_base_ = 'shiftwise_mm::...'`` only for packages that it knows, and
torch loads checkpoints of mmengine only with the names in
:mod:`shiftwise_mm.checkpoint.safe_globals`.
"""
import sys
from importlib import import_module

from .stack import register_packages
from .version import __version__

__all__ = ['__version__', 'build_backbone', 'list_models']

# Imported when first asked for: they need all of the models.
_LAZY = dict(build_backbone='zoo', list_models='zoo')
# The doctor has to start whatever is broken: it tells how to mend it.
_DOCTOR = {'doctor', 'shiftwise_mm.doctor', 'shiftwise_mm.diagnosis.process'}


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'.{_LAZY[name]}', __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


def _register() -> None:
    # First of all: everything else imports mmengine without such a message.
    register_packages()
    from .checkpoint.safe_globals import register_safe_globals
    register_safe_globals()


def _runs_doctor() -> bool:
    words = (word.rpartition('/')[2].removesuffix('.py')
             for word in sys.orig_argv)
    return not _DOCTOR.isdisjoint(words)


try:
    _register()
except Exception:
    if not _runs_doctor():
        raise
