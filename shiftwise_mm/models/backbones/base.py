"""What all backbones share: stages, output norms, freezing, loading."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn as nn
from mmengine.model import BaseModule
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from shiftwise_mm.checkpoint.load_hook import prepare_state_dict
from shiftwise_mm.models.layers.conv_stem import ConvStem
from shiftwise_mm.models.layers.norm import LayerNorm2d
from shiftwise_mm.models.layers.pointwise_linear import PointwiseLinear
from shiftwise_mm.ops.spec import check_int

from .depth import parameter_depth

__all__ = ['HierarchicalBackbone', 'per_stage', 'read_arch', 'scale_dims']


def per_stage(name: str, values, num_stages: int, minimum: int) -> tuple:
    """A tuple of one integer a stage.

    Raises:
        TypeError: If it is not a sequence of integers.
        ValueError: If it has another length, or holds a smaller number than
            ``minimum``.
    """
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise TypeError(f'{name} must be a sequence of {num_stages} integers, '
                        f'one a stage, got {values!r}')
    if len(values) != num_stages:
        raise ValueError(f'{name} must hold {num_stages} integers, one a '
                         f'stage, got {values!r}')
    return tuple(check_int(name, value, minimum) for value in values)


def read_arch(arch: str | dict, settings: dict,
              optional: tuple[str, ...] = ()) -> dict:
    """The settings of an architecture, by name or as they are.

    Args:
        arch (str | dict): A name in ``settings``, or a dict with
            ``embed_dims`` and ``depths``, one integer a stage.
        settings (dict): Dicts by name.
        optional (tuple[str]): Further keys that a dict may hold.

    Returns:
        dict: ``embed_dims`` and ``depths`` as tuples, and what is optional
        as it is.

    Raises:
        TypeError, ValueError: If the name is unknown or the dict is not one
            of that kind.
    """
    if isinstance(arch, str):
        if arch not in settings:
            raise ValueError(f'arch must be one of {tuple(settings)} or a '
                             f'dict, got {arch!r}')
        arch = settings[arch]
    elif not isinstance(arch, dict):
        raise TypeError(f'arch must be a str or a dict, got {arch!r}')
    if not {'embed_dims', 'depths'} <= set(arch) <= {
            'embed_dims', 'depths', *optional}:
        also = f' (and may hold {", ".join(optional)})' if optional else ''
        raise ValueError(f'arch must hold embed_dims and depths{also} and '
                         f'nothing else, got {sorted(arch)}')
    depths = arch['depths']
    count = len(depths) if isinstance(depths, Sequence) else 0
    return {
        **arch,
        'embed_dims': per_stage('embed_dims', arch['embed_dims'], count or 1,
                                1),
        'depths': per_stage('depths', depths, count or 1, 1)
    }


class HierarchicalBackbone(BaseModule):
    """Stages of residual blocks, each behind a downsampling layer.

    Args:
        embed_dims (Sequence[int]): Channels of each stage.
        depths (Sequence[int]): Blocks of each stage.
        make_block (Callable): ``(stage, index, drop_path_rate)`` to a block
            that keeps the shape and has ``switch_to_deploy()``.
        patch_stem (bool): True for downsampling by patches, as ConvNeXt does
            it (4x4 stem; layer norm and 2x2 behind it); False for
            overlapping 3x3 convolutions, as UniRepLKNet does it.
        in_channels (int): Channels of the input. Defaults to 3.
        drop_path_rate (float): Largest drop path rate, in [0, 1); it grows
            linearly from 0 over the blocks. Defaults to 0.
        strides (Sequence[int]): Stride of each stage's downsampling: 2 or 4
            for the stem, 1 or 2 behind it (1 in late stages for dense
            prediction; the kernels stay as they are). Defaults to 4, then 2.
        out_indices (Sequence[int], optional): Stages whose outputs are
            returned. Defaults to all.
        norm_out (bool): Whether to put a layer norm on each output, as the
            published downstream code does. Defaults to True.
        frozen_stages (int): Stages that are not trained: -1 none, 0 the
            stem, ``n`` the stem and stages 1..n. Defaults to -1.
        norm_eval (bool): Whether batch-norms keep their running statistics
            in training. Defaults to False.
        with_cp (bool): Whether to recompute blocks in the backward pass, to
            save memory. Defaults to False.
        deploy (bool): Whether to build the deployed blocks. Defaults to
            False.
        strict_load (bool): Whether loading weights that leave a part of the
            backbone untouched (missing keys, other shapes) is an error; only
            the output norms may be absent. Defaults to True.
        init_cfg (dict, optional): Initialisation, as of ``BaseModule``.

    Shape:
        ``(B, in_channels, H, W)`` in; out a tuple, for each of
        ``out_indices`` ``(B, embed_dims[i], H/s_i, W/s_i)`` with ``s_i`` the
        product of the strides so far: rounded up, or rounded down at each
        layer with a patch stem.

    Raises:
        TypeError, ValueError: If an argument is not allowed; the message
            names it, its value and what is.
    """

    def __init__(self, *,
                 embed_dims: Sequence[int],
                 depths: Sequence[int],
                 make_block: Callable[[int, int, float], nn.Module],
                 patch_stem: bool,
                 in_channels: int = 3,
                 drop_path_rate: float = 0.,
                 strides: Sequence[int] | None = None,
                 out_indices: Sequence[int] | None = None,
                 norm_out: bool = True,
                 frozen_stages: int = -1,
                 norm_eval: bool = False,
                 with_cp: bool = False,
                 deploy: bool = False,
                 strict_load: bool = True,
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.embed_dims = tuple(embed_dims)
        self.depths = tuple(depths)
        num_stages = len(self.depths)
        if not 0 <= drop_path_rate < 1:
            raise ValueError('drop_path_rate must be in [0, 1), got '
                             f'{drop_path_rate}')
        self.strides = self._read_strides(
            (4, ) + (2, ) * (num_stages - 1) if strides is None else strides)
        self.out_indices = self._read_out_indices(
            range(num_stages) if out_indices is None else out_indices)
        self.frozen_stages = check_int('frozen_stages', frozen_stages, -1)
        if frozen_stages > num_stages:
            raise ValueError(f'frozen_stages must be at most {num_stages}, '
                             f'the number of stages, got {frozen_stages}')
        self.norm_out = norm_out
        self.norm_eval = norm_eval
        self.with_cp = with_cp
        self.deploy = deploy
        self.strict_load = strict_load

        make_down = _patch_down if patch_stem else _conv_down
        make_stem = _patch_stem if patch_stem else ConvStem
        self.downsample_layers = nn.ModuleList([
            make_stem(check_int('in_channels', in_channels, 1),
                      self.embed_dims[0], self.strides[0])
        ])
        for i in range(1, num_stages):
            self.downsample_layers.append(
                make_down(*self.embed_dims[i - 1:i + 1], self.strides[i]))
        rates = torch.linspace(0, drop_path_rate, sum(self.depths),
                               device='cpu').tolist()
        self.stages = nn.ModuleList(
            nn.Sequential(*(make_block(i, j, rates.pop(0))
                            for j in range(depth)))
            for i, depth in enumerate(self.depths))
        if norm_out:
            for i in self.out_indices:
                self.add_module(f'norm{i}', LayerNorm2d(self.embed_dims[i]))
        self.apply(_init_layer)
        if deploy:
            self._prepare_inference()
        self._freeze()
        self.register_load_state_dict_pre_hook(prepare_state_dict)

    def _read_strides(self, strides) -> tuple[int, ...]:
        strides = per_stage('strides', strides, len(self.depths), 1)
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

    def train(self, mode: bool = True) -> HierarchicalBackbone:
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
                out = getattr(self, f'norm{i}')(x) if self.norm_out else x
                back = getattr(self, f'order_back{i}', None)
                if back is not None:
                    out = out[:, back]
                # Layer norms leave the channels last in memory, which
                # deformable convolutions and views downstream refuse.
                outs.append(out.contiguous())
        return tuple(outs)

    def get_layer_depth(self, param_name: str, prefix: str = '',
                        num_layers: int | None = None,
                        decay_type: str = 'layer_wise') -> tuple[int, int]:
        """Depth of a parameter, for layer-wise decay of the learning rate.

        Args:
            param_name (str): Full name of the parameter.
            prefix (str): Of the backbone in the model, with its last dot.
            num_layers (int, optional): ``L`` of the grouping, see
                :func:`~shiftwise_mm.models.backbones.depth.parameter_depth`.
            decay_type (str): ``'layer_wise'`` or ``'stage_wise'``.

        Returns:
            tuple[int, int]: The depth and the number of depths: ``L + 2``,
            or the number of stages and 2 more.
        """
        own = param_name.removeprefix(prefix) \
            if param_name.startswith(prefix) else ''
        return parameter_depth(own, self.depths, num_layers, decay_type)

    def switch_to_deploy(self) -> None:
        """Folds paths, branches, norms and layer scales, where exact.

        Shift-wise and decomposed layers become two strip convolutions. The
        outputs in eval mode stay the same up to rounding. A second call does
        nothing.

        Raises:
            TypeError: If a norm has no running statistics to fold.
        """
        for stage in self.stages:
            for block in stage:
                block.switch_to_deploy()
        self.deploy = True
        self._prepare_inference()

    def _prepare_inference(self) -> None:
        self._put_in_order()
        for module in self.stages.modules():
            if isinstance(module, PointwiseLinear):
                module.store_for_inference()

    @torch.no_grad()
    def _put_in_order(self) -> None:
        """Puts the ghosts of each deployed stage behind its other channels.

        Which channels are ghosts depends on their number alone, so that all
        blocks of a stage have the same, and whole vectors of them are only
        scaled. Weights on both sides of the stage change with its channels;
        what it returns is put back.
        """
        for i, stage in enumerate(self.stages):
            orders = [getattr(block, 'order', None) for block in stage]
            if not orders or any(o is None or not torch.equal(o, orders[0])
                                 for o in orders):
                continue
            order = orders[0]
            _put_outputs_in_order(self.downsample_layers[i], order)
            for block in stage:
                block.put_in_order(order)
            if i + 1 < len(self.stages):
                _put_inputs_in_order(self.downsample_layers[i + 1], order)
            if i in self.out_indices:
                if self.norm_out:
                    _put_norm_in_order(getattr(self, f'norm{i}'), order)
                # Known from the tables, which files hold.
                self.register_buffer(f'order_back{i}', order.argsort(),
                                     persistent=False)


def _put_norm_in_order(norm: nn.LayerNorm, order: Tensor) -> None:
    for tensor in (norm.weight, norm.bias):
        tensor.copy_(tensor[order])


def _put_outputs_in_order(layers: nn.Sequential, order: Tensor) -> None:
    """The last convolution, and what follows it."""
    for layer in reversed(layers):
        if isinstance(layer, nn.LayerNorm):
            _put_norm_in_order(layer, order)
        elif isinstance(layer, nn.Conv2d):
            layer.weight.copy_(layer.weight[order])
            layer.bias.copy_(layer.bias[order])
            return


def _put_inputs_in_order(layers: nn.Sequential, order: Tensor) -> None:
    """The first convolution, and what stands before it."""
    for layer in layers:
        if isinstance(layer, nn.LayerNorm):
            _put_norm_in_order(layer, order)
        elif isinstance(layer, nn.Conv2d):
            layer.weight.copy_(layer.weight[:, order])
            return


def scale_dims(embed_dims: Sequence[int],
               width_factor: float) -> tuple[int, ...]:
    """``int(C * width_factor)`` for each stage.

    Raises:
        ValueError: If the factor is not positive.
    """
    if not width_factor > 0:
        raise ValueError(f'width_factor must be positive, got {width_factor}')
    return tuple(int(c * width_factor) for c in embed_dims)


def _conv_down(before: int, dim: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, dim, 3, stride=stride, padding=1),
        LayerNorm2d(dim))


def _patch_stem(in_channels: int, dim: int, stride: int) -> nn.Sequential:
    # The published 4x4 kernel; with stride 2 its windows overlap.
    return nn.Sequential(
        nn.Conv2d(in_channels, dim, 4, stride=stride,
                  padding=(4 - stride) // 2), LayerNorm2d(dim))


def _patch_down(before: int, dim: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        LayerNorm2d(before),
        nn.Conv2d(before, dim, 2, stride=stride,
                  padding=0 if stride == 2 else 'same'))


def _init_layer(module: nn.Module) -> None:
    """The published initialisation."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.trunc_normal_(module.weight, std=.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
