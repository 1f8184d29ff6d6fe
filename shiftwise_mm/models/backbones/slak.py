"""SLaK: decomposed large kernels, as published or made of small ones."""
from __future__ import annotations

from collections.abc import Sequence

import torch.nn as nn

from shiftwise_mm.models.layers.blocks import ConvNeXtBlock
from shiftwise_mm.models.layers.decomposed_conv2d import DecomposedConv2d
from shiftwise_mm.registry import MODELS

from .base import HierarchicalBackbone, per_stage, read_arch, scale_dims

__all__ = ['SLaK']


@MODELS.register_module()
class SLaK(HierarchicalBackbone):
    """SLaK (arXiv 2207.03620) in three forms.

    Dense by itself; the published sparse training is ``CoarseSparsityHook``
    with ``granularity='weight'``.

    * ``form='large'``: two long kernels and a small one in each block, as
      published.
    * ``form='shiftwise'``: the same function, from the same checkpoint, with
      small kernels and shifts (seed paper, section 4.1).
    * ``form='shared_gated'``: both directions share one set of small kernels,
      with a gate a tap and direction (published ``SLaK_pw_wt.py``; its width
      factor is 1).

    A checkpoint of ``'large'`` loads into ``'shiftwise'`` and the reverse;
    :meth:`switch_form` changes a model in place.

    Args:
        arch (str | dict): ``'tiny'``, ``'small'``, ``'base'``, or a dict with
            ``embed_dims`` and ``depths``, one integer a stage.
        in_channels (int): Channels of the input. Defaults to 3.
        kernel_sizes (Sequence[int]): Large kernel of each stage. Defaults
            to (51, 49, 47, 13).
        small_kernel (int): Small kernel ``N``. Defaults to 5.
        width_factor (float): Factor on ``embed_dims``, of which sparse
            training leaves the published cost. Defaults to 1.3.
        form (str): ``'large'``, ``'shiftwise'`` or ``'shared_gated'``.
            Defaults to ``'large'``.
        layer_scale_init_value (float, optional): Start of the layer scale;
            none if None or not positive. Defaults to 1e-6.
        norm_cfg (dict): The batch-norms. Defaults to ``dict(type='BN')``.
        shift_form (str): How small kernels are computed, see
            :func:`shiftwise_mm.ops.shiftwise_conv`. Defaults to ``'auto'``.
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
                 kernel_sizes: Sequence[int] = (51, 49, 47, 13),
                 small_kernel: int = 5,
                 width_factor: float = 1.3,
                 form: str = 'large',
                 layer_scale_init_value: float | None = 1e-6,
                 norm_cfg: dict = dict(type='BN'),
                 shift_form: str = 'auto',
                 deploy: bool = False,
                 **common) -> None:
        arch = read_arch(arch, self.arch_settings)
        dims = scale_dims(arch['embed_dims'], width_factor)
        kernel_sizes = per_stage('kernel_sizes', kernel_sizes,
                                 len(arch['depths']), 1)

        def make_block(stage: int, index: int, rate: float) -> nn.Module:
            layer = DecomposedConv2d(
                dims[stage], kernel_sizes[stage], small_kernel=small_kernel,
                norm_cfg=norm_cfg, form=form, shift_form=shift_form,
                deploy=deploy)
            return ConvNeXtBlock(
                dims[stage], layer, mixer_name='large_kernel',
                drop_path_rate=rate,
                layer_scale_init_value=layer_scale_init_value, deploy=deploy)

        super().__init__(
            embed_dims=dims, depths=arch['depths'], make_block=make_block,
            patch_stem=True, in_channels=in_channels, deploy=deploy, **common)
        self.form = form

    def switch_form(self, form: str) -> None:
        """Changes between ``'large'`` and ``'shiftwise'`` without loss.

        The parameters of the large kernels are made anew: an optimizer must
        be built afterwards.

        Raises:
            ValueError: If the form is another one, the model is gated or
                deployed, or a large kernel could not hold the small ones.
        """
        for module in self.modules():
            if isinstance(module, DecomposedConv2d):
                module.switch_form(form)
        self.form = form

    def adapt_state_dict(self, state_dict: dict, prefix: str) -> None:
        """Brings weights of the other form into this one, in place."""
        for name, module in self.named_modules():
            if isinstance(module, DecomposedConv2d):
                module.adapt_state_dict(state_dict, f'{prefix}{name}.')
