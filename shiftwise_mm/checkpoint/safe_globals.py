"""What a checkpoint may hold besides tensors, under ``weights_only=True``.

Since torch 2.6 ``torch.load`` refuses every file that names a class or
function which is not on its list. mmengine 0.10.7 saves such names in each
checkpoint (the histories of its log), so resuming, ``load_from`` and testing
all fail; published files of SLaK and ShiftWise hold the training's
``argparse.Namespace``. The names needed are registered here, and no others.
"""
from __future__ import annotations

import argparse
import pickle

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

__all__ = ['register_safe_globals']

_STATISTICS = ('min', 'max', 'current', 'mean')


def _history_statistic(owner: type, name: str):
    """Stands in for ``builtins.getattr`` in a checkpoint.

    A ``HistoryBuffer`` is saved with its four statistics, each as a call of
    ``getattr``. The real one would hand any attribute of anything reachable
    to the file, and ``HistoryBuffer.statistics`` would call it.

    Raises:
        pickle.UnpicklingError: For anything but those four.
    """
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise pickle.UnpicklingError(
            f'the checkpoint asks for attribute {name!r} of {owner!r}; '
            f'allowed are {_STATISTICS} of HistoryBuffer')
    return getattr(HistoryBuffer, name)


def register_safe_globals() -> None:
    """Registers the names with ``torch.serialization.add_safe_globals``."""
    multiarray = np._core.multiarray
    torch.serialization.add_safe_globals([
        (_history_statistic, 'builtins.getattr'),
        HistoryBuffer,
        argparse.Namespace,
        np.ndarray,
        np.dtype,
        np.dtypes.Float64DType,
        np.dtypes.Int64DType,
        # Under the names of numpy 2 and of the numpy 1 of older files.
        *((function, f'{module}.{function.__name__}')
          for function in (multiarray.scalar, multiarray._reconstruct)
          for module in ('numpy._core.multiarray', 'numpy.core.multiarray')),
    ])
