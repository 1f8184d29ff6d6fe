"""UniRepLKNet, the baseline that shift-wise networks are compared with."""
from __future__ import annotations

from collections.abc import Sequence

import torch.nn as nn

from shiftwise_mm.models.layers.blocks import UniRepBlock
from shiftwise_mm.models.layers.dilated_reparam import DilatedReparamConv2d
from shiftwise_mm.ops.spec import check_int
from shiftwise_mm.registry import MODELS

from .base import HierarchicalBackbone, read_arch

__all__ = ['UniRepLKNet']

_SMALL_AND_UP = ((3, 3, 3), (13, 13, 13), (13, 3, 3) * 9, (13, 13, 13))


def _arch(width: int, depths: tuple, kernel_sizes: tuple) -> dict:
    return dict(embed_dims=tuple(width * 2**i for i in range(4)),
                depths=depths, kernel_sizes=kernel_sizes)


@MODELS.register_module()
class UniRepLKNet(HierarchicalBackbone):
    """UniRepLKNet (arXiv 2311.15599), dilated re-parameterisation included.

    Blocks of :class:`~shiftwise_mm.models.layers.blocks.UniRepBlock` around a
    :class:`~shiftwise_mm.models.layers.dilated_reparam.DilatedReparamConv2d`
    for kernels of 7 and more, a plain depthwise convolution for 3 and 5. All
    names of parameters are the published ones.

    Args:
        arch (str | dict): ``'a'``, ``'f'``, ``'p'``, ``'n'``, ``'t'``,
            ``'s'``, ``'b'``, ``'l'``, ``'xl'``, or a dict with ``embed_dims``
            and ``depths``, one integer a stage, and ``kernel_sizes``, for
            each stage one integer or a sequence of one a block.
        in_channels (int): Channels of the input. Defaults to 3.
        layer_scale_init_value (float, optional): Start of the layer scale;
            none if None or not positive. Defaults to 1e-6.
        norm_cfg (dict): The batch-norms. Defaults to ``dict(type='BN')``.
        deploy (bool): Whether to build the deployed blocks: one depthwise
            convolution each. Defaults to False.
        common: ``drop_path_rate``, ``strides``, ``out_indices``,
            ``norm_out``, ``frozen_stages``, ``norm_eval``, ``with_cp``,
            ``strict_load``, ``init_cfg``; see
            :class:`~shiftwise_mm.models.backbones.base.HierarchicalBackbone`,
            also for shapes and errors.
    """

    arch_settings = {
        'a': _arch(40, (2, 2, 6, 2), (3, 13, 13, 13)),
        'f': _arch(48, (2, 2, 6, 2), (3, 13, 13, 13)),
        'p': _arch(64, (2, 2, 6, 2), (3, 13, 13, 13)),
        'n': _arch(80, (2, 2, 8, 2), (3, 13, 13, 13)),
        't': _arch(80, (3, 3, 18, 3), (3, 13, (13, 3) * 9, 13)),
        's': _arch(96, (3, 3, 27, 3), _SMALL_AND_UP),
        'b': _arch(128, (3, 3, 27, 3), _SMALL_AND_UP),
        'l': _arch(192, (3, 3, 27, 3), _SMALL_AND_UP),
        'xl': _arch(256, (3, 3, 27, 3), _SMALL_AND_UP),
    }

    def __init__(self,
                 arch: str | dict = 't',
                 in_channels: int = 3,
                 layer_scale_init_value: float | None = 1e-6,
                 norm_cfg: dict = dict(type='BN'),
                 deploy: bool = False,
                 **common) -> None:
        arch = read_arch(arch, self.arch_settings, ('kernel_sizes', ))
        dims = arch['embed_dims']
        kernel_sizes = _read_kernels(arch)

        def make_block(stage: int, index: int, rate: float) -> nn.Module:
            channels, size = dims[stage], kernel_sizes[stage][index]
            if size >= 7 and not deploy:
                layer = DilatedReparamConv2d(channels, size, norm_cfg)
            else:
                layer = nn.Conv2d(channels, channels, size,
                                  padding=size // 2, groups=channels,
                                  bias=deploy)
            return UniRepBlock(
                channels, layer, mixer_name='dwconv', drop_path_rate=rate,
                layer_scale_init_value=layer_scale_init_value,
                norm_cfg=norm_cfg, deploy=deploy)

        super().__init__(
            embed_dims=dims, depths=arch['depths'], make_block=make_block,
            patch_stem=False, in_channels=in_channels, deploy=deploy,
            **common)
        self.kernel_sizes = kernel_sizes


def _read_kernels(arch: dict) -> tuple[tuple[int, ...], ...]:
    """Kernel size of each block, by stage."""
    given, depths = arch.get('kernel_sizes'), arch['depths']
    if not isinstance(given, Sequence) or len(given) != len(depths):
        raise ValueError(f'kernel_sizes in arch must hold {len(depths)} '
                         'entries, one a stage (a number, or one a block), '
                         f'got {given!r}')
    kernels = []
    for sizes, depth in zip(given, depths, strict=True):
        sizes = tuple(sizes) if isinstance(sizes, Sequence) \
            else (sizes, ) * depth
        if len(sizes) != depth:
            raise ValueError(f'kernel_sizes in arch must hold {depth} '
                             f'numbers for a stage of {depth} blocks, got '
                             f'{sizes}')
        for size in sizes:
            if check_int('kernel_sizes', size, 3) % 2 == 0:
                raise ValueError('kernel_sizes must be odd, got '
                                 f'{size} in {given!r}')
        kernels.append(sizes)
    return tuple(kernels)
