"""ShiftWiseNet: the backbone of shift-wise large-kernel networks."""
from __future__ import annotations

from collections.abc import Sequence

import torch.nn as nn

from shiftwise_mm.models.layers.blocks import ConvNeXtBlock, UniRepBlock
from shiftwise_mm.models.layers.ghost import STYLES
from shiftwise_mm.models.layers.shiftwise_conv2d import ShiftWiseConv2d
from shiftwise_mm.registry import MODELS

from .base import HierarchicalBackbone, per_stage, read_arch, scale_dims

__all__ = ['ShiftWiseNet']


@MODELS.register_module()
class ShiftWiseNet(HierarchicalBackbone):
    """ShiftWiseNet in both published styles.

    * ``style='unirep'`` (published ``ShiftWise_v2``, arXiv 2401.12736): a
      stem of two strided 3x3 convolutions,
      :class:`~shiftwise_mm.models.layers.blocks.UniRepBlock`.
    * ``style='slak'`` (published ``ShiftWise_v1``): stem, downsampling and
      block of SLaK and ConvNeXt,
      :class:`~shiftwise_mm.models.layers.blocks.ConvNeXtBlock`. With
      ``ghost_ratio=0, num_paths=1, num_reps=1`` it is the block with shared
      branches of the seed paper.

    Args:
        arch (str | dict): ``'tiny'``, ``'small'``, ``'base'``, in unirep
            style also ``'large'``, ``'nano'`` (ours, to train on a CPU), or a
            dict with ``embed_dims`` and ``depths``, one integer a stage.
        in_channels (int): Channels of the input. Defaults to 3.
        kernel_sizes (Sequence[int]): Large kernel of each stage. Defaults
            to (51, 49, 47, 13).
        small_kernel (int, optional): Small kernel ``N``. Defaults to 3 in
            unirep style, 5 in slak style.
        ghost_ratio (float): Share of the channels that pass the operator
            unchanged, in [0, 1). Defaults to 0.23.
        num_paths (int): Parallel small convolutions. Defaults to 2.
        num_reps (int): Repetitions of the shift with other tables. Defaults
            to 4.
        width_factor (float): Factor on ``embed_dims``. Defaults to 1.0.
        style (str): ``'unirep'`` or ``'slak'``. Defaults to ``'unirep'``.
        layer_scale_init_value (float, optional): Start of the layer scale;
            none if None or not positive. Defaults to 1e-6.
        norm_cfg (dict): The batch-norms. Defaults to ``dict(type='BN')``.
        shift_form (str): Form of the shift-wise convolution, see
            :func:`shiftwise_mm.ops.shiftwise_conv`. Defaults to ``'auto'``.
        deploy (bool): Whether to build the deployed blocks. Defaults to
            False.
        common: ``drop_path_rate``, ``strides``, ``out_indices``,
            ``norm_out``, ``frozen_stages``, ``norm_eval``, ``with_cp``,
            ``strict_load``, ``init_cfg``; see
            :class:`~shiftwise_mm.models.backbones.base.HierarchicalBackbone`,
            also for shapes and errors.

    Example:
        >>> import torch
        >>> from shiftwise_mm.models import ShiftWiseNet
        >>> net = ShiftWiseNet('nano')
        >>> [tuple(f.shape) for f in net(torch.rand(1, 3, 64, 96))]
        [(1, 24, 16, 24), (1, 48, 8, 12), (1, 96, 4, 6), (1, 192, 2, 3)]
    """

    arch_settings = {
        'unirep': {
            'nano': dict(embed_dims=(24, 48, 96, 192), depths=(1, 1, 3, 1)),
            'tiny': dict(embed_dims=(80, 160, 320, 640), depths=(3, 3, 18, 3)),
            'small': dict(embed_dims=(96, 192, 384, 768),
                          depths=(3, 3, 27, 3)),
            'base': dict(embed_dims=(128, 256, 512, 1024),
                         depths=(3, 3, 27, 3)),
            'large': dict(embed_dims=(192, 384, 768, 1536),
                          depths=(3, 3, 27, 3)),
        },
        'slak': {
            'nano': dict(embed_dims=(24, 48, 96, 192), depths=(1, 1, 3, 1)),
            'tiny': dict(embed_dims=(96, 192, 384, 768), depths=(3, 3, 9, 3)),
            'small': dict(embed_dims=(96, 192, 384, 768),
                          depths=(3, 3, 27, 3)),
            'base': dict(embed_dims=(128, 256, 512, 1024),
                         depths=(3, 3, 27, 3)),
        },
    }

    def __init__(self,
                 arch: str | dict = 'tiny',
                 in_channels: int = 3,
                 kernel_sizes: Sequence[int] = (51, 49, 47, 13),
                 small_kernel: int | None = None,
                 ghost_ratio: float = 0.23,
                 num_paths: int = 2,
                 num_reps: int = 4,
                 width_factor: float = 1.0,
                 style: str = 'unirep',
                 layer_scale_init_value: float | None = 1e-6,
                 norm_cfg: dict = dict(type='BN'),
                 shift_form: str = 'auto',
                 deploy: bool = False,
                 **common) -> None:
        if style not in STYLES:
            raise ValueError(f'style must be one of {STYLES}, got {style!r}')
        arch = read_arch(arch, self.arch_settings[style])
        dims = scale_dims(arch['embed_dims'], width_factor)
        kernel_sizes = per_stage('kernel_sizes', kernel_sizes,
                                 len(arch['depths']), 1)
        if small_kernel is None:
            small_kernel = 3 if style == 'unirep' else 5

        def make_block(stage: int, index: int, rate: float) -> nn.Module:
            layer = ShiftWiseConv2d(
                dims[stage],
                kernel_size=kernel_sizes[stage],
                bias=False,
                small_kernel=small_kernel,
                num_paths=num_paths,
                num_reps=num_reps,
                ghost_ratio=ghost_ratio,
                style=style,
                norm_cfg=norm_cfg,
                form=shift_form,
                deploy=deploy)
            options = dict(
                mixer_name='large_kernel',
                drop_path_rate=rate,
                layer_scale_init_value=layer_scale_init_value,
                deploy=deploy)
            if style == 'slak':
                return ConvNeXtBlock(dims[stage], layer, **options)
            return UniRepBlock(dims[stage], layer, norm_cfg=norm_cfg,
                               **options)

        super().__init__(
            embed_dims=dims, depths=arch['depths'], make_block=make_block,
            patch_stem=style == 'slak', in_channels=in_channels,
            deploy=deploy, **common)
        self.style = style
