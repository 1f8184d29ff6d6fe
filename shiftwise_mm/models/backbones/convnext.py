"""ConvNeXt, so that the comparison needs no further package."""
from __future__ import annotations

import torch.nn as nn

from shiftwise_mm.models.layers.blocks import ConvNeXtBlock
from shiftwise_mm.registry import MODELS

from .base import HierarchicalBackbone, read_arch

__all__ = ['ConvNeXt']


@MODELS.register_module()
class ConvNeXt(HierarchicalBackbone):
    """ConvNeXt (arXiv 2201.03545) with the published names of parameters.

    It has no batch-norms: ``deploy`` folds the layer scale alone.

    Args:
        arch (str | dict): ``'tiny'``, ``'small'``, ``'base'``, or a dict with
            ``embed_dims`` and ``depths``, one integer a stage.
        in_channels (int): Channels of the input. Defaults to 3.
        layer_scale_init_value (float, optional): Start of the layer scale;
            none if None or not positive. Defaults to 1e-6.
        norm_cfg (dict): The layer norms of the blocks. Defaults to
            ``dict(type='LN', eps=1e-6)``.
        deploy (bool): Whether to build the deployed blocks. Defaults to
            False.
        common: ``drop_path_rate``, ``strides``, ``out_indices``,
            ``norm_out``, ``frozen_stages``, ``norm_eval``, ``with_cp``,
            ``strict_load``, ``init_cfg``; see
            :class:`~shiftwise_mm.models.backbones.base.HierarchicalBackbone`,
            also for shapes and errors.
    """

    arch_settings = {
        'tiny': dict(embed_dims=(96, 192, 384, 768), depths=(3, 3, 9, 3)),
        'small': dict(embed_dims=(96, 192, 384, 768), depths=(3, 3, 27, 3)),
        'base': dict(embed_dims=(128, 256, 512, 1024), depths=(3, 3, 27, 3)),
    }

    def __init__(self,
                 arch: str | dict = 'tiny',
                 in_channels: int = 3,
                 layer_scale_init_value: float | None = 1e-6,
                 norm_cfg: dict = dict(type='LN', eps=1e-6),
                 deploy: bool = False,
                 **common) -> None:
        arch = read_arch(arch, self.arch_settings)
        dims = arch['embed_dims']

        def make_block(stage: int, index: int, rate: float) -> nn.Module:
            channels = dims[stage]
            layer = nn.Conv2d(channels, channels, 7, padding=3,
                              groups=channels)
            return ConvNeXtBlock(
                channels, layer, mixer_name='dwconv', drop_path_rate=rate,
                layer_scale_init_value=layer_scale_init_value, deploy=deploy,
                norm_cfg=norm_cfg)

        super().__init__(
            embed_dims=dims, depths=arch['depths'], make_block=make_block,
            patch_stem=True, in_channels=in_channels, deploy=deploy, **common)
