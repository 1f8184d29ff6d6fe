"""Which small kernels a sparse network keeps, and what that saves."""
from .report import SparsityReport
from .tap_sets import TapSet, find_tap_sets

__all__ = ['SparsityReport', 'TapSet', 'find_tap_sets']
