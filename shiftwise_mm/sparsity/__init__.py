"""Sparse training: masks over small kernels, and how they change.

``CoarseSparsityHook`` (:mod:`shiftwise_mm.engine.hooks`) brings it into a
training of mmengine's Runner.
"""
from .densities import erk_counts, snip_counts, uniform_counts
from .masked_training import MaskedTraining
from .schedule import Schedule
from .snip import NoScoresError, snip_scores
from .targets import Target, check_masks, find_targets

__all__ = [
    'MaskedTraining', 'NoScoresError', 'Schedule', 'Target', 'check_masks',
    'erk_counts', 'find_targets', 'snip_counts', 'snip_scores',
    'uniform_counts'
]
