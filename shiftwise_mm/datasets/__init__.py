"""Data sets: a small generated one, and a check of the user's own."""

from .coco_folder import CocoFolder, CocoSplit, DataError, read_coco_folder
from .shapes import SHAPE_CLASSES, ShapesSummary, make_shapes_dataset

__all__ = [
    'SHAPE_CLASSES',
    'CocoFolder',
    'CocoSplit',
    'DataError',
    'ShapesSummary',
    'make_shapes_dataset',
    'read_coco_folder',
]
