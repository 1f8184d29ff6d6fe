"""Backbones by name, and what is known of them and of the configs."""
from .names import BACKBONES, backbone_config, build_backbone, list_models
from .page import model_zoo_page
from .table import ModelRow, format_rows, model_rows
from .weights import PUBLISHED, PublishedFile

__all__ = [
    'BACKBONES', 'PUBLISHED', 'ModelRow', 'PublishedFile', 'backbone_config',
    'build_backbone', 'format_rows', 'list_models', 'model_rows',
    'model_zoo_page'
]
