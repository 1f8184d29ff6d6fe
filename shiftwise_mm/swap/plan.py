"""Another backbone for an existing detector or segmentor."""
from __future__ import annotations

import copy
import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from mmengine.config import Config

from shiftwise_mm.registry import MODELS

from .names import SwapError, backbone_config
from .original import Level, find_owner, measure_levels, type_name
from .reader import Place
from .readers import find_readers
from .stages import assign_stages

__all__ = ['Swap', 'plan_swap', 'swap_backbone']

_HOOK = 'shiftwise_mm.ConvertPretrainedHook'
_CONSTRUCTOR = 'shiftwise_mm.LayerDecayOptimWrapperConstructor'
_USUAL = (4, 2, 2, 2)


@dataclass(frozen=True)
class Swap:
    """What changes in a config.

    Args:
        name (str): Name of the new backbone.
        where (tuple[str]): Keys to the part that holds the backbone.
        scope (str): Scope in which the model is built.
        levels (tuple[Level]): The levels that the rest of the model takes,
            with the strides of the original and the new channels.
        changes (dict): Nested, as ``Config.merge_from_dict`` takes it: an
            element of a list has its index as a string for a key.
        hook (dict, optional): What is appended to ``custom_hooks``.
    """
    name: str
    where: tuple[str, ...]
    scope: str
    levels: tuple[Level, ...]
    changes: dict
    hook: dict | None

    def describe(self) -> str:
        """The levels in a line, as a user reads them."""
        levels = ', '.join(f'{level.channels} channels at stride '
                           f'{level.stride}' for level in self.levels)
        return f'{self.name} gives {levels}'

    def apply(self, cfg: Config) -> Config:
        """A changed copy of the config that the plan was made for."""
        cfg = copy.deepcopy(cfg)
        cfg.merge_from_dict(copy.deepcopy(self.changes))
        if self.hook:
            cfg.custom_hooks = [*(cfg.get('custom_hooks') or []),
                                dict(self.hook)]
        return cfg


def swap_backbone(cfg: Config, name: str, *,
                  pretrained: str | None = None) -> Config:
    """A copy of a config whose model has another backbone.

    See :func:`plan_swap`, which it applies.

    Example:
        >>> from mmengine.config import Config
        >>> from shiftwise_mm.swap import swap_backbone
        >>> cfg = Config.fromfile('my_config.py')  # doctest: +SKIP
        >>> cfg = swap_backbone(cfg, 'shiftwise-tiny')  # doctest: +SKIP
    """
    return plan_swap(cfg, name, pretrained=pretrained).apply(cfg)


def plan_swap(cfg: Config, name: str, *,
              pretrained: str | None = None) -> Swap:
    """What must change for the model of a config to get another backbone.

    The original backbone is built and run once, for the channels and the
    stride of each of its levels. The new one gives out exactly the levels
    that the rest of the model takes, at the same strides; ``in_channels`` and
    the like of what takes them follow. Weights of the original model are no
    longer loaded, and its frozen stages are trained, unless there are
    weights for the new backbone.

    Args:
        cfg (Config): A config of MMDetection or MMSegmentation, or of the
            user.
        name (str): One of :data:`shiftwise_mm.swap.BACKBONES`.
        pretrained (str, optional): File or URL with weights of the new
            backbone.

    Raises:
        SwapError: If it cannot be done; the sentence says why.
    """
    backbone = backbone_config(name)
    if pretrained and '://' not in pretrained \
            and not os.path.isfile(pretrained):
        raise SwapError(f'pretrained: there is no file {pretrained}')
    owner = find_owner(cfg)
    levels = measure_levels(owner)
    readers = find_readers(owner, levels)
    used = sorted({i for reader in readers for i in reader.levels})
    stages, strides = assign_stages([levels[i].stride for i in used])
    backbone.update(_options(owner.config['backbone'], backbone, stages,
                             strides, pretrained))
    channels = embed_dims(name)
    places = {
        level: Place(index, channels[stage], len(stages))
        for index, (level, stage) in enumerate(zip(used, stages, strict=True))
    }
    part = dict(backbone=dict(_delete_=True, **backbone))
    for reader in readers:
        _merge(part, reader.rewrite(places))
    if owner.config.get('pretrained') is not None:
        part['pretrained'] = None
    for key in reversed(owner.path):
        part = {key: part}
    _drop_weights(cfg, owner.path, part)
    _merge(part, _layer_decay(cfg))
    return Swap(name, owner.path, owner.scope,
                tuple(Level(channels[stage], levels[i].stride)
                      for i, stage in zip(used, stages, strict=True)),
                part, _hook(cfg))


def _options(original: Mapping, backbone: Mapping, stages: tuple,
             strides: tuple, pretrained: str | None) -> dict:
    """Arguments of the new backbone, where they are not the defaults."""
    options = {}
    if strides != _USUAL:
        options['strides'] = strides
    if stages != (0, 1, 2, 3):
        options['out_indices'] = stages
    if original.get('in_channels', 3) != 3:
        options['in_channels'] = original['in_channels']
    if original.get('with_cp'):
        options['with_cp'] = True
    norm = original.get('norm_cfg')
    if norm and type_name(norm) == 'SyncBN' \
            and not backbone['type'].endswith('ConvNeXt'):
        options['norm_cfg'] = dict(type='SyncBN')
    if pretrained:
        for key, default in (('frozen_stages', -1), ('norm_eval', False)):
            if original.get(key, default) != default:
                options[key] = original[key]
        options['init_cfg'] = dict(type='Pretrained', checkpoint=pretrained)
    return options


@functools.lru_cache
def embed_dims(name: str) -> tuple[int, ...]:
    """Channels of the four stages of a backbone."""
    with torch.device('meta'):
        return MODELS.build(backbone_config(name)).embed_dims


def _merge(into: dict, changes: Mapping) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _drop_weights(cfg: Config, path: Sequence[str], changes: dict) -> None:
    """Weights of the whole original, which hold its backbone's."""
    if cfg.get('load_from') is not None:
        changes['load_from'] = None
    part = cfg
    for key in path:
        part, changes = part[key], changes[key]
        init = part.get('init_cfg')
        if isinstance(init, Mapping) and type_name(init) == 'Pretrained':
            changes['init_cfg'] = None


def _layer_decay(cfg: Config) -> dict:
    """Ours, where the recipe has one that knows the original's layers."""
    wrapper = cfg.get('optim_wrapper') or {}
    constructor = wrapper.get('constructor', '')
    if not isinstance(constructor, str):
        constructor = constructor.__name__
    if constructor.rpartition('.')[2] not in (
            'LearningRateDecayOptimizerConstructor',
            'LayerDecayOptimizerConstructor'):
        return {}
    options = wrapper.get('paramwise_cfg', {})
    rate = options.get('decay_rate', options.get('layer_decay_rate'))
    return dict(optim_wrapper=dict(
        constructor=_CONSTRUCTOR,
        paramwise_cfg=dict(
            _delete_=True, decay_rate=rate,
            decay_type=options.get('decay_type', 'layer_wise'))))


def _hook(cfg: Config) -> dict | None:
    hooks = cfg.get('custom_hooks') or []
    if any(hook.get('type') == _HOOK for hook in hooks):
        return None
    return dict(type=_HOOK)
