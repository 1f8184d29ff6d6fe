"""Hooks of mmengine's Runner, one a file."""
from .comparison_pictures_hook import ComparisonPicturesHook

__all__ = ['ComparisonPicturesHook']
