"""Heads, one file each."""
from .cls_head import ShiftWiseClsHead

__all__ = ['ShiftWiseClsHead']
