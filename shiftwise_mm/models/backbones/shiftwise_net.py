"""ShiftWiseNet: the backbone of shift-wise large-kernel networks."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn as nn
from mmengine.model import BaseModule
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from shiftwise_mm.models.layers.blocks import UniRepBlock
from shiftwise_mm.models.layers.norm import LayerNorm2d
from shiftwise_mm.models.layers.shiftwise_conv2d import ShiftWiseConv2d
from shiftwise_mm.ops.spec import check_int
from shiftwise_mm.registry import MODELS

__all__ = ['ShiftWiseNet']


def _per_stage(name: str, values, num_stages: int, minimum: int) -> tuple:
    """A tuple of one integer a stage."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise TypeError(f'{name} must be a sequence of {num_stages} integers, '
                        f'one a stage, got {values!r}')
    if len(values) != num_stages:
        raise ValueError(f'{name} must hold {num_stages} integers, one a '
                         f'stage, got {values!r}')
    return tuple(check_int(name, value, minimum) for value in values)


@MODELS.register_module()
class ShiftWiseNet(BaseModule):
    """ShiftWiseNet in unirep style, as published (``ShiftWise_v2``).

    A stem of two strided 3x3 convolutions, then stages of
    :class:`~shiftwise_mm.models.layers.blocks.UniRepBlock`, each behind a
    3x3 downsampling convolution with a layer norm. Source: ShiftwiseConv
    (arXiv 2401.12736).

    Args:
        arch (str | dict): ``'tiny'``, ``'small'``, ``'base'``, ``'large'``,
            ``'nano'`` (ours, to train on a CPU), or a dict with
            ``embed_dims`` and ``depths``, one integer a stage.
        in_channels (int): Channels of the input. Defaults to 3.
        kernel_sizes (Sequence[int]): Large kernel of each stage. Defaults
            to (51, 49, 47, 13).
        small_kernel (int): Small kernel ``N``. Defaults to 3.
        ghost_ratio (float): Share of the channels that pass the operator
            unchanged, in [0, 1). Defaults to 0.23.
        num_paths (int): Parallel small convolutions. Defaults to 2.
        num_reps (int): Repetitions of the shift with other tables. Defaults
            to 4.
        width_factor (float): Factor on ``embed_dims``. Defaults to 1.0.
        style (str): ``'unirep'``.
        drop_path_rate (float): Largest drop path rate, in [0, 1); it grows
            linearly from 0 over the blocks. Defaults to 0.
        layer_scale_init_value (float, optional): Start of the layer scale;
            none if None or not positive. Defaults to 1e-6.
        strides (Sequence[int]): Stride of each stage's downsampling: 2 or 4
            for the stem, 1 or 2 behind it (1 in late stages for dense
            prediction; the kernels stay as they are). Defaults to
            (4, 2, 2, 2).
        out_indices (Sequence[int]): Stages whose outputs are returned.
            Defaults to (0, 1, 2, 3).
        norm_out (bool): Whether to put a layer norm on each output, as the
            published downstream code does. Defaults to True.
        frozen_stages (int): Stages that are not trained: -1 none, 0 the
            stem, ``n`` the stem and stages 1..n. Defaults to -1.
        norm_eval (bool): Whether batch-norms keep their running statistics
            in training. Defaults to False.
        norm_cfg (dict): The batch-norms. Defaults to ``dict(type='BN')``.
        with_cp (bool): Whether to recompute blocks in the backward pass, to
            save memory. Defaults to False.
        shift_form (str): Form of the shift-wise convolution, see
            :func:`shiftwise_mm.ops.shiftwise_conv`. Defaults to ``'auto'``.
        deploy (bool): Whether to build the deployed convolutions. Defaults
            to False.
        strict_load (bool): Whether loading weights that leave a part of the
            backbone untouched (missing keys, other shapes) is an error; only
            the output norms may be absent. Defaults to True.
        init_cfg (dict, optional): Initialisation, as of ``BaseModule``.

    Shape:
        ``(B, in_channels, H, W)`` in; out a tuple, for each of
        ``out_indices`` ``(B, embed_dims[i], H/s_i, W/s_i)`` with ``s_i`` the
        product of the strides so far, rounded up.

    Raises:
        TypeError, ValueError: If an argument is not allowed; the message
            names it, its value and what is.

    Example:
        >>> import torch
        >>> from shiftwise_mm.models import ShiftWiseNet
        >>> net = ShiftWiseNet('nano')
        >>> [tuple(f.shape) for f in net(torch.rand(1, 3, 64, 96))]
        [(1, 24, 16, 24), (1, 48, 8, 12), (1, 96, 4, 6), (1, 192, 2, 3)]
    """

    arch_settings = {
        'nano': dict(embed_dims=(24, 48, 96, 192), depths=(1, 1, 3, 1)),
        'tiny': dict(embed_dims=(80, 160, 320, 640), depths=(3, 3, 18, 3)),
        'small': dict(embed_dims=(96, 192, 384, 768), depths=(3, 3, 27, 3)),
        'base': dict(embed_dims=(128, 256, 512, 1024), depths=(3, 3, 27, 3)),
        'large': dict(embed_dims=(192, 384, 768, 1536), depths=(3, 3, 27, 3)),
    }
    styles = ('unirep', )

    def __init__(self,
                 arch: str | dict = 'tiny',
                 in_channels: int = 3,
                 kernel_sizes: Sequence[int] = (51, 49, 47, 13),
                 small_kernel: int = 3,
                 ghost_ratio: float = 0.23,
                 num_paths: int = 2,
                 num_reps: int = 4,
                 width_factor: float = 1.0,
                 style: str = 'unirep',
                 drop_path_rate: float = 0.,
                 layer_scale_init_value: float | None = 1e-6,
                 strides: Sequence[int] = (4, 2, 2, 2),
                 out_indices: Sequence[int] = (0, 1, 2, 3),
                 norm_out: bool = True,
                 frozen_stages: int = -1,
                 norm_eval: bool = False,
                 norm_cfg: dict = dict(type='BN'),
                 with_cp: bool = False,
                 shift_form: str = 'auto',
                 deploy: bool = False,
                 strict_load: bool = True,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        embed_dims, self.depths = self._read_arch(arch)
        num_stages = len(self.depths)
        if not width_factor > 0:
            raise ValueError(f'width_factor must be positive, got '
                             f'{width_factor}')
        self.embed_dims = tuple(int(c * width_factor) for c in embed_dims)
        if style not in self.styles:
            raise ValueError(f'style must be one of {self.styles}, got '
                             f'{style!r}')
        if not 0 <= drop_path_rate < 1:
            raise ValueError('drop_path_rate must be in [0, 1), got '
                             f'{drop_path_rate}')
        kernel_sizes = _per_stage('kernel_sizes', kernel_sizes, num_stages, 1)
        self.strides = self._read_strides(strides)
        self.out_indices = self._read_out_indices(out_indices)
        self.frozen_stages = check_int('frozen_stages', frozen_stages, -1)
        if frozen_stages > num_stages:
            raise ValueError(f'frozen_stages must be at most {num_stages}, '
                             f'the number of stages, got {frozen_stages}')
        self.norm_eval = norm_eval
        self.with_cp = with_cp
        self.strict_load = strict_load

        self.downsample_layers = nn.ModuleList(
            [self._make_stem(check_int('in_channels', in_channels, 1))])
        for i in range(1, num_stages):
            self.downsample_layers.append(
                nn.Sequential(
                    nn.Conv2d(self.embed_dims[i - 1], self.embed_dims[i], 3,
                              stride=self.strides[i], padding=1),
                    LayerNorm2d(self.embed_dims[i])))
        rates = torch.linspace(0, drop_path_rate, sum(self.depths)).tolist()
        self.stages = nn.ModuleList(
            nn.Sequential(*(UniRepBlock(
                self.embed_dims[i],
                kernel_size=kernel_sizes[i],
                small_kernel=small_kernel,
                num_paths=num_paths,
                num_reps=num_reps,
                ghost_ratio=ghost_ratio,
                drop_path_rate=rates.pop(0),
                layer_scale_init_value=layer_scale_init_value,
                norm_cfg=norm_cfg,
                form=shift_form,
                deploy=deploy) for _ in range(depth)))
            for i, depth in enumerate(self.depths))
        if norm_out:
            for i in self.out_indices:
                self.add_module(f'norm{i}', LayerNorm2d(self.embed_dims[i]))
        self.norm_out = norm_out
        self.apply(self._init_layer)
        self._freeze()
        self.register_load_state_dict_pre_hook(_check_complete)

    def _read_arch(self, arch: str | dict) -> tuple[tuple, tuple]:
        if isinstance(arch, str):
            if arch not in self.arch_settings:
                raise ValueError(f'arch must be one of '
                                 f'{tuple(self.arch_settings)} or a dict, got '
                                 f'{arch!r}')
            arch = self.arch_settings[arch]
        elif not isinstance(arch, dict):
            raise TypeError(f'arch must be a str or a dict, got {arch!r}')
        if set(arch) != {'embed_dims', 'depths'}:
            raise ValueError('arch must hold embed_dims and depths and '
                             f'nothing else, got {sorted(arch)}')
        depths = arch['depths']
        count = len(depths) if isinstance(depths, Sequence) else 0
        return (_per_stage('embed_dims', arch['embed_dims'], count or 1, 1),
                _per_stage('depths', depths, count or 1, 1))

    def _read_strides(self, strides) -> tuple[int, ...]:
        strides = _per_stage('strides', strides, len(self.depths), 1)
        if strides[0] not in (2, 4) or any(s not in (1, 2)
                                           for s in strides[1:]):
            raise ValueError('strides must be 2 or 4 for the stem and 1 or 2 '
                             f'behind it, got {strides}')
        return strides

    def _read_out_indices(self, out_indices) -> tuple[int, ...]:
        if not isinstance(out_indices, Sequence):
            raise TypeError('out_indices must be a sequence of stages, got '
                            f'{out_indices!r}')
        num_stages = len(self.depths)
        if not out_indices or list(out_indices) != sorted(set(out_indices)) \
                or not 0 <= out_indices[0] <= out_indices[-1] < num_stages:
            raise ValueError('out_indices must be ascending stages out of '
                             f'0..{num_stages - 1}, got {out_indices!r}')
        return tuple(out_indices)

    def _make_stem(self, in_channels: int) -> nn.Sequential:
        dim = self.embed_dims[0]
        return nn.Sequential(
            nn.Conv2d(in_channels, dim // 2, 3, stride=2, padding=1),
            LayerNorm2d(dim // 2), nn.GELU(),
            nn.Conv2d(dim // 2, dim, 3, stride=self.strides[0] // 2,
                      padding=1), LayerNorm2d(dim))

    @staticmethod
    def _init_layer(module: nn.Module) -> None:
        """The published initialisation."""
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.trunc_normal_(module.weight, std=.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    def _freeze(self) -> None:
        """Stops the training of the stem and the frozen stages."""
        if self.frozen_stages < 0:
            return
        frozen = [self.downsample_layers[0]]
        for i in range(self.frozen_stages):
            frozen += [self.downsample_layers[i], self.stages[i]]
        for module in frozen:
            module.eval()
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> ShiftWiseNet:
        """Sets the mode; frozen stages and ``norm_eval`` norms stay."""
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        outs = []
        for i, (down, stage) in enumerate(
                zip(self.downsample_layers, self.stages, strict=True)):
            if i > self.out_indices[-1]:
                break
            x = down(x)
            for block in stage:
                if self.with_cp and self.training:
                    x = checkpoint(block, x, use_reentrant=False)
                else:
                    x = block(x)
            if i in self.out_indices:
                outs.append(getattr(self, f'norm{i}')(x) if self.norm_out
                            else x)
        return tuple(outs)

    def switch_to_deploy(self) -> None:
        """Folds every shift-wise convolution into two strip convolutions.

        The outputs in eval mode stay the same up to rounding.
        """
        for module in self.modules():
            if isinstance(module, ShiftWiseConv2d):
                module.switch_to_deploy()


def _check_complete(module: ShiftWiseNet, state_dict: dict, prefix: str,
                    *args) -> None:
    """Refuses weights that leave a part of the backbone untouched.

    torch tells a pre-hook ``strict=True`` whatever the caller said, and
    mmengine only logs missing keys and other shapes, so it is checked here.

    Raises:
        ValueError: Naming the first missing key or other shape.
    """
    if not module.strict_load:
        return
    own = module.state_dict()
    optional = tuple(f'norm{i}.' for i in module.out_indices)
    missing = [
        name for name in own
        if prefix + name not in state_dict and not name.startswith(optional)
    ]
    other = [
        name for name, value in own.items()
        if state_dict.get(prefix + name, value).shape != value.shape
    ]
    if missing:
        raise ValueError(
            f'{len(missing)} of {len(own)} tensors of {type(module).__name__} '
            f'are missing under {prefix!r}, the first is {missing[0]!r}: the '
            'checkpoint is of another model (strict_load=False loads what '
            'there is)')
    if other:
        given = tuple(state_dict[prefix + other[0]].shape)
        raise ValueError(
            f'{len(other)} tensors of the checkpoint have another shape, the '
            f'first is {prefix + other[0]!r} with {given}, the model has '
            f'{tuple(own[other[0]].shape)}: the options of the backbone must '
            'be those of the checkpoint')
