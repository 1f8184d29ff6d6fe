"""Checkpoints: safe loading, published names, what a file holds."""
from .container import open_container
from .convert import ConversionReport, convert_state_dict
from .describe import Facts, describe
from .loading import load_pretrained

__all__ = [
    'ConversionReport', 'Facts', 'convert_state_dict', 'describe',
    'load_pretrained', 'open_container'
]
