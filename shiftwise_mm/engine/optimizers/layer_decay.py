"""Learning rates that fall from the heads to the stem."""
from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import torch.nn as nn
from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor

from shiftwise_mm.ops.spec import check_int
from shiftwise_mm.registry import OPTIM_WRAPPER_CONSTRUCTORS

from .swin_depth import is_swin, swin_layer_depth

__all__ = ['LayerDecayOptimWrapperConstructor']

_TYPES = ('layer_wise', 'stage_wise')
_KEYS = ('decay_rate', 'decay_type', 'num_layers')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    r"""Layer-wise decay of the learning rate, as the published recipes use it.

    The backbone tells the depth ``d`` of each of its parameters
    (``get_layer_depth(name, prefix, num_layers, decay_type)``, which also
    returns the number of depths ``D``); what lies outside of it (neck, heads)
    has depth ``D - 1``. The learning rate of a parameter is

    .. math:: lr \cdot rate^{D - 1 - d}

    Parameters of one dimension and biases get no weight decay. Works for any
    detector, segmentor or classifier whose ``backbone`` has
    ``get_layer_depth``, or is the Swin Transformer of mmdet or mmseg, so that
    it can be compared in the same recipe; also through wrappers such as
    ``DistributedDataParallel``. Source: BEiT (arXiv 2106.08254); the grouping
    of convolutional stages is ConvNeXt's (arXiv 2201.03545).

    Its ``paramwise_cfg``:

    * ``decay_rate`` (float): ``rate``, in (0, 1].
    * ``decay_type`` (str): ``'layer_wise'`` (default) or ``'stage_wise'``.
    * ``num_layers`` (int, optional): ``L`` of the grouping. Defaults,
      layer-wise, to the published 12 for a third stage of more than 9 blocks,
      else 6.

    Raises:
        TypeError, ValueError: If an option is not allowed, or the model has
            no backbone that tells depths.
    """

    def __init__(self, optim_wrapper_cfg: dict,
                 paramwise_cfg: dict | None = None) -> None:
        options = dict(paramwise_cfg or {})
        super().__init__(optim_wrapper_cfg, options)
        unknown = sorted(set(options) - set(_KEYS))
        if unknown:
            raise ValueError(f'paramwise_cfg may hold {_KEYS}, got {unknown}')
        self.decay_rate = options.get('decay_rate')
        if isinstance(self.decay_rate, bool) or \
                not isinstance(self.decay_rate, (int, float)) or \
                not 0 < self.decay_rate <= 1:
            raise ValueError('decay_rate in paramwise_cfg must be a number in '
                             f'(0, 1], got {self.decay_rate!r}')
        self.decay_type = options.get('decay_type', _TYPES[0])
        if self.decay_type not in _TYPES:
            raise ValueError(f'decay_type must be one of {_TYPES}, got '
                             f'{self.decay_type!r}')
        self.num_layers = options.get('num_layers')
        if self.num_layers is not None:
            check_int('num_layers', self.num_layers, 1)

    def add_params(self, params: list[dict], module: nn.Module,
                   **kwargs) -> None:
        """Fills ``params`` with one group a depth and weight decay.

        Args:
            params (list[dict]): Receives the groups.
            module (nn.Module): The model.
        """
        prefix, layer_depth = find_deep_backbone(module)
        base_lr = self.optimizer_cfg['lr']
        decay = self.optimizer_cfg.get('weight_decay') or 0.
        groups: dict[tuple, dict] = {}
        for name, param in module.named_parameters():
            if not param.requires_grad:
                continue
            depth, num_depths = layer_depth(
                name, prefix, self.num_layers, self.decay_type)
            plain = param.ndim == 1 or name.endswith('.bias')
            scale = self.decay_rate**(num_depths - 1 - depth)
            group = groups.setdefault((depth, plain), dict(
                params=[], param_names=[], lr=base_lr * scale,
                lr_scale=scale, weight_decay=0. if plain else decay,
                group_name=f'layer_{depth}_'
                + ('no_decay' if plain else 'decay')))
            group['params'].append(param)
            group['param_names'].append(name)
        for key in sorted(groups):
            group = groups[key]
            print_log(
                f'{group["group_name"]}: {len(group["params"])} parameters '
                f'from {group["param_names"][0]}, lr {group["lr"]:.4g} '
                f'(scale {group["lr_scale"]:.4g}), weight decay '
                f'{group["weight_decay"]:g}', logger='current',
                level=logging.INFO)
            params.append(group)


def find_deep_backbone(model: nn.Module) -> tuple[str, Callable]:
    """Prefix of the backbone in a model, and what tells its depths.

    Raises:
        ValueError: If there is none.
    """
    for name, module in model.named_modules():
        tell = getattr(module, 'get_layer_depth', None)
        if tell is None and is_swin(module):
            tell = partial(swin_layer_depth, module)
        if callable(tell):
            return f'{name}.' if name else '', tell
    raise ValueError(
        'LayerDecayOptimWrapperConstructor needs a backbone with '
        f'get_layer_depth(); {type(model).__name__} has none (all backbones '
        'of shiftwise_mm have it)')
