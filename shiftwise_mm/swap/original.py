"""The backbone that a config has: where it is and what it gives out."""
from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import MODELS
from torch import Tensor

from .names import SwapError

__all__ = ['MEASURED', 'Level', 'OriginalError', 'Owner', 'find_owner',
           'measure_levels', 'type_name']

_SIZE = 128

MEASURED: dict[str, tuple[Level, ...]] = {}
"""What :func:`measure_levels` found, by scope and config of the backbone."""

_TIED = {
    'UNet': 'UNet holds its decoder, whose stages take the encoder\'s at '
            'every stride from 1 on',
    'ICNet': 'ICNet is a cascade of three image sizes, whose neck and heads '
             'belong together',
    'BiSeNetV1': 'BiSeNetV1 holds a spatial path and the fusion with it',
    'BiSeNetV2': 'BiSeNetV2 holds two branches and their aggregation, and '
                 'its heads take the insides of the semantic branch',
    'DDRNet': 'DDRNet is two branches that exchange features, and its head '
              'takes both',
    'ERFNet': 'ERFNet holds its decoder',
    'FastSCNN': 'FastSCNN holds the fusion of its two branches, and its heads '
                'take the parts before and behind it',
    'PIDNet': 'PIDNet is three branches that exchange features, and its head '
              'takes all of them',
    'STDCContextPathNet': 'STDC\'s context path fuses its own stages, and the '
                          'detail head takes one from inside',
    'SSDVGG': 'SSD takes two layers from inside VGG and makes the other '
              'levels by extra layers of its own',
    'HourglassNet': 'an hourglass goes down and up again in each stack, and '
                    'the heads take every stack',
    'TridentResNet': 'TridentNet repeats the batch for each branch of its '
                     'last stage, and its head counts on that',
    'DetectoRS_ResNet': 'DetectoRS feeds its neck\'s outputs back into the '
                        'ResNet, or exchanges its convolutions',
    'DetectoRS_ResNeXt': 'DetectoRS feeds its neck\'s outputs back into the '
                         'ResNeXt, or exchanges its convolutions',
    'VPD': 'VPD is a diffusion model with its text encoder',
}


class OriginalError(SwapError):
    """The original cannot be built in this environment."""


@dataclass(frozen=True)
class Level:
    """What a backbone gives out at one level."""
    channels: int
    stride: int


@dataclass(frozen=True)
class Owner:
    """The part of a config that holds the backbone.

    Args:
        path (tuple[str]): Keys from the root of the config.
        config (Mapping): The part itself.
        scope (str): Scope in which it is built.
    """
    path: tuple[str, ...]
    config: Mapping
    scope: str


def type_name(config: Mapping) -> str:
    """Last part of the ``type``, which may be a class."""
    kind = config.get('type', '')
    name = kind if isinstance(kind, str) else kind.__name__
    return name.rpartition('.')[2]


def _scope(cfg: Config, owner: Mapping) -> str:
    return cfg.model.get('_scope_') or cfg.get('default_scope') or (
        'mmseg' if 'decode_head' in owner else 'mmdet')


def find_owner(cfg: Config) -> Owner:
    """The detector or segmentor in a config, nested or not.

    In a tracker it is the detector; the backbone that tells identities apart
    stays.

    Raises:
        SwapError: If there is none, or its backbone is one part with the
            rest.
    """
    model = cfg.get('model')
    if not isinstance(model, Mapping) or 'type' not in model:
        raise SwapError('the config has no model')
    found = _search(model, ('model', ))
    if not found:
        raise SwapError(f'the model {type_name(model)} has no backbone')
    depth = min(len(path) for path, _ in found)
    found = [(path, part) for path, part in found if len(path) == depth]
    if len(found) > 1:
        names = ', '.join('.'.join(path) for path, _ in found)
        raise SwapError(f'the model has several backbones, in {names}')
    (path, part), = found
    if type_name(model) == 'Detectron2Wrapper':
        raise SwapError('the model is Detectron2\'s, built by its own config')
    name = type_name(part['backbone'])
    if name in _TIED:
        raise SwapError(f'encoder and decoder are tied: {_TIED[name]}')
    return Owner(path, part, _scope(cfg, part))


def _search(part: Mapping, path: tuple[str, ...]) -> list:
    backbone = part.get('backbone')
    if isinstance(backbone, Mapping):
        return [(path, part)]
    return [
        found for key, value in part.items()
        if isinstance(value, Mapping) and key != 'reid'
        for found in _search(value, (*path, key))
    ]


def measure_levels(owner: Owner) -> tuple[Level, ...]:
    """Channels and stride of each output of the backbone, by running it.

    Raises:
        OriginalError: If it cannot be built or run.
        SwapError: If it gives out something other than feature maps.
    """
    config = dict(owner.config['backbone'])
    for key in ('init_cfg', 'pretrained'):
        config.pop(key, None)
    key = json.dumps([owner.scope, config], sort_keys=True, default=str)
    if key not in MEASURED:
        MEASURED[key] = _measure(config, owner.scope)
    return MEASURED[key]


def _measure(config: dict, scope: str) -> tuple[Level, ...]:
    channels = config.get('in_channels', 3)
    try:
        outs = _run(config, scope, channels, 'meta')
    # Some read tensors while they are built or have operators of their own.
    except Exception as error:
        print_log(f'{type_name(config)} on meta: {error}', 'current',
                  logging.DEBUG)
        try:
            outs = _run(config, scope, channels, 'cpu')
        except Exception as error:
            raise OriginalError(
                f'the backbone {type_name(config)} cannot be built here, so '
                'that its channels and strides are not known: '
                f'{type(error).__name__}: {_first_line(error)}') from error
    outs = (outs, ) if isinstance(outs, Tensor) else outs
    if not isinstance(outs, Sequence) or not all(
            isinstance(out, Tensor) and out.ndim == 4 for out in outs):
        raise SwapError(f'{type_name(config)} gives out more than feature '
                        'maps, such as class tokens')
    return tuple(Level(out.shape[1], round(_size(config) / out.shape[-1]))
                 for out in outs)


def _size(config: Mapping) -> int:
    """Side of an image that the backbone takes; some take one only."""
    size = config.get('img_size', _SIZE)
    return size if isinstance(size, int) else size[-1]


def _run(config: dict, scope: str, channels: int, device: str):
    size = _size(config)
    with MODELS.switch_scope_and_registry(scope) as registry, \
            torch.device(device), torch.no_grad():
        backbone = registry.build(config)
        backbone.eval()  # some return nothing
        return backbone(torch.zeros(1, channels, size, size))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition('\n')[0][:300]
