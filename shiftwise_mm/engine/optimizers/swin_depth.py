"""Depths of the Swin Transformers of mmdet and mmseg, which tell none."""
from __future__ import annotations

import re

import torch.nn as nn

from shiftwise_mm.models.backbones.depth import parameter_depth

__all__ = ['is_swin', 'swin_layer_depth']

# Their parts as those of a convolutional network; a stage of Swin ends with
# the downsampling that others begin with.
_PARTS = (
    (re.compile(r'patch_embed\.|absolute_pos_embed$'),
     lambda match: 'downsample_layers.0.'),
    (re.compile(r'stages\.(\d+)\.downsample\.'),
     lambda match: f'downsample_layers.{int(match[1]) + 1}.'),
    (re.compile(r'stages\.(\d+)\.blocks\.'),
     lambda match: f'stages.{match[1]}.'),
)


def is_swin(module: nn.Module) -> bool:
    """Whether it is the Swin Transformer of mmdet or mmseg."""
    return type(module).__name__ == 'SwinTransformer' and \
        type(module).__module__.split('.')[0] in ('mmdet', 'mmseg')


def swin_layer_depth(
        backbone: nn.Module, param_name: str, prefix: str = '',
        num_layers: int | None = None,
        decay_type: str = 'layer_wise') -> tuple[int, int]:
    """Depth of a parameter, in the grouping of convolutional networks.

    Args:
        backbone (nn.Module): A Swin Transformer of mmdet or mmseg.
        param_name (str): Full name of the parameter.
        prefix (str): Of the backbone in the model, with its last dot.
        num_layers (int, optional): ``L`` of the grouping, see
            :func:`~shiftwise_mm.models.backbones.depth.parameter_depth`.
        decay_type (str): ``'layer_wise'`` or ``'stage_wise'``.

    Returns:
        tuple[int, int]: The depth, and the number of depths.
    """
    own = ''
    if param_name.startswith(prefix):
        rest = param_name.removeprefix(prefix)
        for pattern, rename in _PARTS:
            match = pattern.match(rest)
            if match:
                own = rename(match) + rest[match.end():]
    num_blocks = tuple(len(stage.blocks) for stage in backbone.stages)
    return parameter_depth(own, num_blocks, num_layers, decay_type)
