"""A model by its config and checkpoint, ready for inference."""
from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch.nn as nn
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS

from shiftwise_mm.checkpoint.container import open_container
from shiftwise_mm.checkpoint.convert import first_few
from shiftwise_mm.checkpoint.loading import (
    adapt_checkpoint,
    find_backbones,
    load_file,
)
from shiftwise_mm.swap.text import read_config

from .inputs import BUILD_ERRORS, InputError, check_checkpoint, in_a_line

__all__ = ['build_model', 'extractors', 'input_channels', 'load_weights',
           'read_model_config']

_OUTPUT_NORM = re.compile(r'norm\d+\.(?:weight|bias)')


def read_model_config(config: str) -> Config:
    """A config with a model, by its path or as ``'mmdet::...'``.

    Raises:
        InputError: If it cannot be read or has no ``model``.
    """
    try:
        cfg = read_config(config)
    except ValueError as error:
        raise InputError(f'{config}: {error}') from error
    if not isinstance(cfg.get('model'), dict):
        raise InputError(f'{config} has no model')
    return cfg


def build_model(cfg: Config) -> nn.Module:
    """The model of a config, in eval mode, as a runner would build it.

    Raises:
        InputError: If it cannot be built.
    """
    config = copy.deepcopy(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        config.setdefault('data_preprocessor', cfg.data_preprocessor)
    try:
        with MODELS.switch_scope_and_registry(
                cfg.get('default_scope') or 'mmengine') as registry:
            model = registry.build(config)
    except (*BUILD_ERRORS, KeyError) as error:
        raise InputError(f'the model of {cfg.filename} cannot be built: '
                         f'{in_a_line(error)}') from error
    return revert_sync_batchnorm(model).eval()


def load_weights(model: nn.Module, checkpoint: str) -> tuple[dict, list[str]]:
    """Loads a checkpoint that holds all of a model.

    Native and published names, with masks of sparse training or without;
    what an ``EMAHook`` has averaged is what mmengine saves as ``state_dict``.

    Args:
        model (nn.Module): Changed in place.
        checkpoint (str): A path or URL.

    Returns:
        tuple[dict, list[str]]: ``meta`` of the checkpoint, and the names of
        tensors for which the model has no place.

    Raises:
        InputError: If it does not exist, is refused, is of another model or
            lacks a part of it.
    """
    check_checkpoint(checkpoint)
    backbones = list(find_backbones(model))
    try:
        content = load_file(checkpoint)
        if not isinstance(content, Mapping):
            raise ValueError(f'it holds a {type(content).__name__}')
        state_dict = adapt_checkpoint(model, content)[0] if backbones else \
            open_container(content).state_dict
        missing, unexpected = model.load_state_dict(state_dict, strict=False)
    except (ValueError, RuntimeError, TypeError, OSError) as error:
        raise InputError(f'checkpoint {checkpoint} does not fit: '
                         + ' '.join(str(error).split())) from error
    # Published files of a backbone alone have no output norms.
    optional = {prefix + name for prefix, backbone in backbones
                for name in backbone.state_dict()
                if _OUTPUT_NORM.fullmatch(name)}
    missing = [name for name in missing if name not in optional
               and not name.endswith('num_batches_tracked')]
    if missing:
        raise InputError(f'checkpoint {checkpoint} lacks {len(missing)} '
                         f'tensors of the model: {first_few(missing)}')
    meta = content.get('meta')
    return dict(meta) if isinstance(meta, Mapping) else {}, list(unexpected)


def extractors(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The backbones of a model, each with its name.

    Ours wherever they are; else the module called ``backbone``; else the
    model itself (with the name ``''``).
    """
    ours = [(prefix.rstrip('.'), module)
            for prefix, module in find_backbones(model)]
    if ours:
        yield from ours
    elif isinstance(getattr(model, 'backbone', None), nn.Module):
        yield 'backbone', model.backbone
    else:
        yield '', model


def input_channels(backbone: nn.Module) -> int:
    """Channels of the image, as its first convolution tells."""
    return next((module.in_channels for module in backbone.modules()
                 if isinstance(module, nn.Conv2d)), 3)


def size_of(path: Path) -> str:
    """Megabytes of a file, for messages."""
    return f'{path.stat().st_size / 1e6:.1f} MB'
