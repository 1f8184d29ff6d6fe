"""What a checkpoint may hold besides tensors, under ``weights_only=True``.

Since torch 2.6 ``torch.load`` refuses every file that names a class or
function which is not on its list. mmengine 0.10.7 saves such names in each
checkpoint (the histories of its log), so resuming, ``load_from`` and testing
all fail; published files of SLaK and ShiftWise hold the training's
``argparse.Namespace``. The names needed are registered here, and no others.

What mmengine's maintained fork adds to that is taken back, see
:func:`shiftwise_mm.stack.close_checkpoint_fallback`.
"""
from __future__ import annotations

import argparse
import pickle

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

from shiftwise_mm.stack import close_checkpoint_fallback

__all__ = ['register_safe_globals']


class _OneCycle:
    """Stands in for the scheduler's class, which a file could make."""


# What mmengine's checkpoints ask for: the statistics of a history, the
# annealing functions of a scheduler. None has a side effect.
_ATTRIBUTES = {
    HistoryBuffer: {name: getattr(HistoryBuffer, name)
                    for name in ('min', 'max', 'current', 'mean')},
    _OneCycle: {name: getattr(OneCycleParamScheduler, name)
                for name in ('_annealing_cos', '_annealing_linear')},
}
# Of scalars and arrays (metrics, palettes).
_DTYPES = {type(np.dtype(code)) for code in '?bBhHiIlLqQefd'}


def _getattr(owner: type, name: str):
    """Stands in for ``builtins.getattr`` in a checkpoint.

    A ``HistoryBuffer`` is saved with its four statistics, each as a call of
    ``getattr``. The real one would hand any attribute of anything reachable
    to the file, and ``HistoryBuffer.statistics`` would call it.

    Raises:
        pickle.UnpicklingError: For anything but what mmengine asks for.
    """
    allowed = _ATTRIBUTES.get(owner) if isinstance(owner, type) else None
    if allowed is None or not isinstance(name, str) or name not in allowed:
        raise pickle.UnpicklingError(
            f'the checkpoint asks for attribute {name!r} of {owner!r}; '
            f'allowed are {tuple(_ATTRIBUTES[HistoryBuffer])} of '
            'HistoryBuffer')
    return allowed[name]


def register_safe_globals() -> None:
    """Registers the names with ``torch.serialization.add_safe_globals``.

    They are all that mmengine's own functions load then, on its fork too.
    """
    multiarray = np._core.multiarray
    torch.serialization.add_safe_globals([
        (_getattr, 'builtins.getattr'),
        (_OneCycle, f'{OneCycleParamScheduler.__module__}.'
         f'{OneCycleParamScheduler.__qualname__}'),
        HistoryBuffer,
        argparse.Namespace,
        np.ndarray,
        np.dtype,
        *_DTYPES,
        # Under the names of numpy 2 and of the numpy 1 of older files.
        *((function, f'{module}.{function.__name__}')
          for function in (multiarray.scalar, multiarray._reconstruct)
          for module in ('numpy._core.multiarray', 'numpy.core.multiarray')),
    ])
    close_checkpoint_fallback()
