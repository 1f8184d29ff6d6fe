"""Data sets: generated shapes, checks of the user's own, image folders."""

from .coco_folder import CocoFolder, CocoSplit, DataError, read_coco_folder
from .image_folder import ImageFolder
from .seg_folder import SegFolder, SegSplit, read_seg_folder
from .shapes import SHAPE_CLASSES, ShapesSummary, make_shapes_dataset
from .transforms import PackClsInputs, ResizeShortSide

__all__ = [
    'SHAPE_CLASSES',
    'CocoFolder',
    'CocoSplit',
    'DataError',
    'ImageFolder',
    'PackClsInputs',
    'ResizeShortSide',
    'SegFolder',
    'SegSplit',
    'ShapesSummary',
    'make_shapes_dataset',
    'read_coco_folder',
    'read_seg_folder',
]
