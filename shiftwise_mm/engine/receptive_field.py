"""Effective receptive fields of backbones, by name or config."""
from __future__ import annotations

import ast
import copy
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from PIL import Image
from torch import Tensor

from shiftwise_mm.analysis.erf import (
    THRESHOLDS,
    Field,
    area_squares,
    effective_field,
)
from shiftwise_mm.checkpoint import load_pretrained
from shiftwise_mm.checkpoint.container import open_container
from shiftwise_mm.checkpoint.convert import first_few
from shiftwise_mm.checkpoint.loading import find_backbones, load_file
from shiftwise_mm.ops.spec import check_int
from shiftwise_mm.registry import MODELS
from shiftwise_mm.swap.names import BACKBONES, SwapError, backbone_config
from shiftwise_mm.swap.text import read_config

from .inputs import BUILD_ERRORS, InputError, check_checkpoint, in_a_line
from .prediction_inputs import UnreadableImage, find_images, read_image

__all__ = ['Backbone', 'Measured', 'measure_fields', 'read_backbone']

_SEED = 0
# ImageNet's, of pixels in 0..255, red first.
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_CONFIG = re.compile(r'::|\.(py|json|ya?ml)$')


@dataclass(frozen=True)
class Backbone:
    """What to build.

    Attributes:
        source (str): A name of :data:`~shiftwise_mm.swap.BACKBONES`, a config
            or a registered type such as ``'mmdet.ResNet'``.
        checkpoint (str, optional): Its weights; random ones without.
        label (str): How it is called in the figure.
        options (dict): Arguments of the backbone, instead of those of the
            source.
    """

    source: str
    checkpoint: str | None = None
    label: str = ''
    options: Mapping = field(default_factory=dict)


def read_backbone(text: str) -> Backbone:
    """A backbone in one word: ``SOURCE[,checkpoint=FILE][,label=TEXT]...``.

    Other ``NAME=VALUE`` are arguments of the backbone, in Python's notation,
    e.g. ``'mmdet.ResNet,depth=50,label=ResNet-50'``.

    Raises:
        InputError: If it is not of this form.
    """
    source, *parts = _split(text)
    options = {}
    for part in parts:
        name, equals, value = part.partition('=')
        if not equals or not name.isidentifier() or name in options:
            raise InputError(f'backbone {text!r}: {part!r} must be '
                             'NAME=VALUE, each name once')
        options[name] = value
    checkpoint, label = options.pop('checkpoint', None), options.pop(
        'label', None)
    if not source:
        raise InputError(f'backbone {text!r} begins with no name')
    name = Path(source).stem if _CONFIG.search(source) else source
    return Backbone(source, checkpoint, label or ', '.join(
        [name, *(f'{key}={value}' for key, value in options.items())]),
        {key: _value(value) for key, value in options.items()})


def _split(text: str) -> list[str]:
    """The parts between commas; those within brackets do not count."""
    parts, depth = [''], 0
    for letter in text:
        depth += (letter in '([{') - (letter in ')]}')
        if letter == ',' and depth <= 0:
            parts.append('')
        else:
            parts[-1] += letter
    return parts


def _value(text: str):
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


@dataclass(frozen=True)
class Measured:
    """A backbone and its effective receptive field.

    Attributes:
        backbone (Backbone): What was built.
        field (Field): The contributions.
        squares (dict): By threshold, see
            :func:`~shiftwise_mm.analysis.erf.area_squares`.
    """

    backbone: Backbone
    field: Field
    squares: dict

    def as_dict(self) -> dict:
        """For JSON."""
        own = self.backbone
        return dict(
            label=own.label, source=own.source, options=dict(own.options),
            weights=own.checkpoint or f'random, seed {_SEED}',
            images=self.field.images, left_out=self.field.left_out,
            input_size=list(self.field.scores.shape),
            map_size=list(self.field.map_size),
            largest_score=float(self.field.scores.max()),
            squares={f'{threshold:g}': vars(square)
                     for threshold, square in self.squares.items()})


def measure_fields(
        backbones: Sequence[Backbone],
        inputs: Sequence[str | os.PathLike],
        *,
        stage: int = -1,
        size: int = 1024,
        num_images: int = 50,
        device: str | None = None,
        thresholds: Sequence[float] = THRESHOLDS,
        progress: Callable[[int, int], None] | None = None
) -> tuple[list[Measured], list[tuple[str, str]]]:
    """Measures backbones on the same images, as RepLKNet's script does.

    Images are resized to a square by Pillow's bicubic filter, whatever their
    shape, and normalised by the config's data preprocessor, else as ImageNet;
    the first ones in the order of their paths are taken. Random weights are
    the same in every run.

    Args:
        backbones (Sequence[Backbone]): What to measure.
        inputs (Sequence[str]): Images, folders and patterns.
        stage (int): Which of the feature maps that a backbone gives.
            Defaults to the last.
        size (int): Side of the input in pixels. Defaults to 1024.
        num_images (int): Images at most. Defaults to 50.
        device (str, optional): Defaults to the CPU.
        thresholds (Sequence[float]): Shares of the area figures. Defaults to
            the published ones.
        progress (Callable, optional): Called with the images done and those
            to do, of all backbones.

    Returns:
        tuple: The measured backbones, and path and reason of each image that
        cannot be read.

    Raises:
        InputError: If a backbone, an image path or the device cannot be used.
        TypeError, ValueError: If a number is out of its range.
    """
    check_int('size', size, 32)
    check_int('num_images', num_images, 1)
    if not backbones:
        raise InputError('there is no backbone')
    images, skipped = [], []
    for found in find_images(inputs):
        try:
            images.append(_resized(found.path, size))
        except (UnreadableImage, OSError) as error:
            skipped.append((str(found.path), str(error)))
        if len(images) == num_images:
            break
    if not images:
        raise InputError('none of the images can be read: '
                         + '; '.join(map(': '.join, skipped[:3])))
    total, done, measured = len(images) * len(backbones), 0, []

    def fed(mean, std, to_rgb: bool) -> Iterator[Tensor]:
        nonlocal done
        for pixels in images:
            if progress:
                progress(done, total)
            yield _normalised(pixels, mean, std, to_rgb).to(device or 'cpu')
            done += 1

    for backbone in backbones:
        network, normalisation = _build(backbone)
        try:
            found = effective_field(network.to(device or 'cpu'),
                                    fed(*normalisation), stage)
        except (RuntimeError, ValueError, AssertionError) as error:
            raise InputError(f'backbone {backbone.label}: '
                             f'{in_a_line(error)}') from error
        measured.append(Measured(
            backbone, found, area_squares(found.scores, thresholds)))
    if progress:
        progress(total, total)
    return measured, skipped


def _resized(path: Path, size: int) -> np.ndarray:
    """uint8 (size, size, 3), red first."""
    image = Image.fromarray(read_image(path)[..., ::-1].copy())
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))


def _normalised(pixels: np.ndarray, mean, std, rgb: bool) -> Tensor:
    pixels = pixels if rgb else pixels[..., ::-1]
    x = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)
    mean, std = (torch.tensor(v, dtype=torch.float32).view(-1, 1, 1)
                 for v in (mean, std))
    return ((x - mean) / std)[None]


def _build(backbone: Backbone) -> tuple[nn.Module, tuple]:
    """The network, and mean, std and the order of the channels."""
    options, scope, normalisation = _config_of(backbone)
    options.update(copy.deepcopy(dict(backbone.options)))
    # Else weights would be downloaded, or be others than those asked for.
    init = options.get('init_cfg')
    if isinstance(init, Mapping) and init.get('type') == 'Pretrained':
        options['init_cfg'] = None
    options.pop('pretrained', None)
    try:
        with torch.random.fork_rng(devices=[]), \
                DefaultScope.overwrite_default_scope(scope):
            torch.random.default_generator.manual_seed(_SEED)
            network = MODELS.build(options)
            if backbone.checkpoint is None and hasattr(network,
                                                       'init_weights'):
                network.init_weights()
    except BUILD_ERRORS as error:
        cause = in_a_line(error)
        known = '' if backbone.source in BACKBONES \
            or _CONFIG.search(backbone.source) else \
            f'; the names are {", ".join(BACKBONES)}'
        raise InputError(f'backbone {backbone.source!r} cannot be built: '
                         f'{cause}{known}') from error
    if backbone.checkpoint is not None:
        _load(network, backbone.checkpoint)
    return revert_sync_batchnorm(network), normalisation


def _config_of(backbone: Backbone) -> tuple[dict, str, tuple]:
    """Config of a backbone, its scope and the normalisation of its input."""
    usual = _MEAN, _STD, True
    if backbone.source in BACKBONES:
        # The feature map itself, as in the published figures.
        return {**backbone_config(backbone.source), 'norm_out': False}, \
            'mmengine', usual
    if not _CONFIG.search(backbone.source):
        return dict(type=backbone.source), 'mmengine', usual
    try:
        cfg: Config = read_config(backbone.source)
    except SwapError as error:
        raise InputError(f'{backbone.source}: {error}') from error
    model = cfg.get('model')
    if not isinstance(model, Mapping):
        raise InputError(f'{backbone.source} has no model')
    first = model.get('data_preprocessor') or cfg.get('data_preprocessor') \
        or {}
    if first.get('mean') and first.get('std'):
        usual = tuple(first['mean']), tuple(first['std']), bool(
            first.get('bgr_to_rgb'))
    options = model.get('backbone', model)
    return (options.to_dict() if hasattr(options, 'to_dict')
            else dict(options)), cfg.get('default_scope') or 'mmengine', usual


def _load(network: nn.Module, checkpoint: str) -> None:
    """Weights of the backbone alone, or of a model around it."""
    check_checkpoint(checkpoint)
    try:
        if list(find_backbones(network)):
            load_pretrained(network, checkpoint)
            return
        weights = open_container(load_file(checkpoint)).state_dict
    except (ValueError, TypeError, OSError) as error:
        raise InputError(f'checkpoint {checkpoint} cannot be loaded: '
                         f'{in_a_line(error)}') from error
    inside = {name.partition('backbone.')[2]: value
              for name, value in weights.items()
              if re.match(r'(module\.)?backbone\.', name)}
    weights = inside or weights
    shapes = {name: tuple(value.shape) for name, value in weights.items()
              if isinstance(value, Tensor)}
    wrong = [name for name, value in network.state_dict().items()
             if shapes.get(name) != tuple(value.shape)]
    if wrong:
        raise InputError(f'checkpoint {checkpoint} is of another network than '
                         f'{type(network).__name__}: not there, or of another '
                         f'shape: {first_few(wrong)}')
    network.load_state_dict(weights, strict=False)
