"""Hooks of mmengine's Runner, one a file."""
from .coarse_sparsity_hook import CoarseSparsityHook
from .comparison_pictures_hook import ComparisonPicturesHook
from .convert_pretrained_hook import ConvertPretrainedHook
from .switch_to_deploy_hook import SwitchToDeployHook

__all__ = [
    'CoarseSparsityHook', 'ComparisonPicturesHook', 'ConvertPretrainedHook',
    'SwitchToDeployHook'
]
