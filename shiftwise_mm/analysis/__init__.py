"""What a model costs."""
from .composition import published_composition, shift_additions
from .flops import Complexity, Report, count_config, count_model, read_config

__all__ = [
    'Complexity', 'Report', 'count_config', 'count_model',
    'published_composition', 'read_config', 'shift_additions'
]
