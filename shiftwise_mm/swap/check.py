"""Does a swapped config train and predict?"""
from __future__ import annotations

import copy
import logging
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from torch import Tensor

from shiftwise_mm.checkpoint.loading import find_backbones

from .dummy import Noise
from .original import Level, find_owner, type_name
from .plan import Swap

__all__ = ['SIZES', 'CheckReport', 'check_swap']

SIZES = (128, 256, 416)
"""Sides of the images of a check, from the first to try."""

_REGIONS = 64


@dataclass
class CheckReport:
    """How far a check came.

    Args:
        problem (str): The first thing that is wrong; empty if none is.
        stage (str): What was being done: ``'build'``, ``'train'``,
            ``'predict'``, or ``'done'``.
        size (int): Side of the images.
        levels (list[Level]): Channels and strides that the backbone gave.
        losses (dict): Sum of each loss.
        parameters (int): Of the backbone.
        seconds (float): How long it took.
    """
    problem: str = ''
    stage: str = 'build'
    size: int = 0
    levels: list[Level] = field(default_factory=list)
    losses: dict[str, float] = field(default_factory=dict)
    parameters: int = 0
    seconds: float = 0.

    @property
    def passed(self) -> bool:
        """Whether all went well."""
        return self.stage == 'done'

    def describe(self) -> str:
        """The finding in a line."""
        if not self.passed:
            return f'{self.stage}: {self.problem}'
        return (f'trained a step and predicted at {self.size} pixels in '
                f'{self.seconds:.1f} seconds: loss '
                f'{self.losses["loss"]:.4g}, a gradient for all '
                f'{self.parameters} parameters of the backbone')


class _Wrong(Exception):
    """A finding of the check itself; the message is the finding."""


def check_swap(cfg: Config, swap: Swap | None = None, *,
               sizes: Sequence[int] = SIZES) -> CheckReport:
    """Builds a model, trains it for a step and predicts, on noise.

    Every level must have the channels and the stride of ``swap.levels``,
    every trained parameter of the backbone must get a gradient, and all
    losses must be finite. Weights of the backbone are loaded if the config
    names some; no others are.

    Args:
        cfg (Config): A swapped config, or any other.
        swap (Swap, optional): What it was swapped by. Defaults to None, for
            a config whose backbone is none of ours.
        sizes (Sequence[int]): Sides of the images; a later one is tried
            where a smaller one does not do (900 queries want as many
            places, some heads pool by large windows). Defaults to
            :data:`SIZES`.

    Returns:
        CheckReport: Of the last size that was tried.
    """
    start = time.monotonic()
    for size in sizes:
        report = CheckReport(size=size)
        with _apart():
            try:
                _run(cfg, swap, report)
            except _Wrong as finding:
                report.problem = str(finding)
            # Models raise anything.
            except Exception as error:
                report.problem = (f'{type(error).__name__}: '
                                  f'{_in_a_line(error)}')
        report.seconds = time.monotonic() - start
        if report.stage in ('build', 'done'):
            break
    return report


def _in_a_line(error: Exception) -> str:
    return ' '.join(str(error).split())[:300]


@contextmanager
def _apart() -> Iterator[None]:
    """The first epoch, own random numbers, and no log of all layers."""
    logger = MMLogger.get_current_instance()
    told = MessageHub.get_current_instance().runtime_info
    before = dict(told)
    level = logger.level
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        logger.setLevel(logging.WARNING)
        told['epoch'] = 0  # TOOD asks for it
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        try:
            yield
        finally:
            logger.setLevel(level)
            told.clear()
            told.update(before)
            random.setstate(states[0])
            np.random.set_state(states[1])


def _run(cfg: Config, swap: Swap | None, report: CheckReport) -> None:
    owner = find_owner(cfg)
    noise = Noise(report.size, min(_counts(owner.config), default=1),
                  owner.config['backbone'].get('in_channels', 3),
                  _has_masks(cfg.get('train_dataloader')))
    model_config = _offline(copy.deepcopy(cfg.model), cfg)
    with MODELS.switch_scope_and_registry(owner.scope) as registry:
        model = registry.build(model_config)
        model.init_weights()
        model = revert_sync_batchnorm(model)
        backbones = [module for _, module in find_backbones(model)]
        if swap and not backbones:
            raise _Wrong('the model holds no backbone of shiftwise_mm')
        report.parameters = sum(p.numel() for b in backbones[:1]
                                for p in b.parameters())
        report.stage = 'train'
        _train(model, backbones, noise, report)
        if swap and tuple(report.levels) != swap.levels:
            raise _Wrong(f'the backbone gives {report.levels}, expected '
                         f'{list(swap.levels)}')
        report.stage = 'predict'
        model.eval()
        with torch.no_grad():
            model.test_step(noise.test(model))
    report.stage = 'done'


def _counts(part) -> Iterator[int]:
    """Numbers of classes of all heads."""
    if isinstance(part, Mapping):
        for key, value in part.items():
            if key in ('num_classes', 'num_things_classes') and \
                    isinstance(value, int):
                yield value
            yield from _counts(value)
    elif isinstance(part, (list, tuple)):
        for item in part:
            yield from _counts(item)


def _has_masks(loader) -> bool:
    """Whether the recipe reads masks; some heads mind where it does not."""
    if loader is None:
        return True
    if isinstance(loader, Mapping):
        return bool(loader.get('with_mask')) \
            or type_name(loader) == 'LoadPanopticAnnotations' \
            or any(_has_masks(value) for value in loader.values()
                   if value is not None)
    return isinstance(loader, (list, tuple)) and any(
        _has_masks(item) for item in loader if item is not None)


def _offline(model: Mapping, cfg: Config) -> Mapping:
    """A model's config without downloads and without large batches."""
    if model.get('data_preprocessor') is None \
            and cfg.get('data_preprocessor'):
        model['data_preprocessor'] = copy.deepcopy(cfg.data_preprocessor)
    _forget(model)
    return model


def _forget(part) -> None:
    if isinstance(part, Mapping):
        ours = str(part.get('type', '')).startswith('shiftwise_mm.')
        init = part.get('init_cfg')
        if not ours and isinstance(init, Mapping) \
                and type_name(init) == 'Pretrained':
            part['init_cfg'] = None
        for key in ('pretrained', 'teacher_ckpt'):
            if part.get(key) is not None:
                part[key] = None
        if type_name(part) == 'MMSyncBN':  # reverted on one CPU, as SyncBN is
            part['type'] = 'SyncBN'
        if isinstance(part.get('num'), int):  # of a sampler
            part['num'] = min(part['num'], _REGIONS)
        # Where nothing is suppressed the number is that of the queries.
        if 'nms' in part and isinstance(part.get('max_per_img'), int):
            part['max_per_img'] = min(part['max_per_img'], _REGIONS)
        if type_name(part).lower().endswith('preprocessor'):
            # They pad or resize to the sizes of the recipe.
            part.pop('batch_augments', None)
            if part.get('size') is not None:
                part['size'], part['size_divisor'] = None, 32
        for value in part.values():
            _forget(value)
    elif isinstance(part, (list, tuple)):
        for item in part:
            _forget(item)


def _train(model: nn.Module, backbones: list[nn.Module], noise: Noise,
           report: CheckReport) -> None:
    """A step without optimiser, and what it shows of the backbones."""
    seen = [_watch(backbone) for backbone in backbones[:1]]
    model.train()
    try:
        losses = _losses(model, noise)
    except NotImplementedError:  # trackers that are trained by their parts
        model = model.detector
        losses = _losses(model, noise)
    total, log = model.parse_losses(losses)
    report.losses = {key: value.item() for key, value in log.items()}
    report.levels = [level for levels in seen for level in levels[:1]][0] \
        if seen else []
    infinite = [key for key, value in report.losses.items()
                if not np.isfinite(value)]
    if infinite:
        raise _Wrong(f'not finite: {", ".join(infinite)}')
    total.backward()
    missed = [name for backbone in backbones
              for name, parameter in backbone.named_parameters()
              if parameter.requires_grad and parameter.grad is None]
    if missed:
        raise _Wrong(f'{len(missed)} parameters of the backbone get no '
                     f'gradient, such as {", ".join(missed[:3])}')


def _losses(model: nn.Module, noise: Noise) -> dict:
    data = model.data_preprocessor(noise.training(model), True)
    return model(**data, mode='loss')


def _watch(backbone: nn.Module) -> list[list[Level]]:
    """Levels of each call, as they come."""
    calls = []

    def note(module, inputs: tuple[Tensor], outs: tuple[Tensor]) -> None:
        calls.append([Level(out.shape[1], round(inputs[0].shape[-1]
                                                / out.shape[-1]))
                      for out in outs])

    backbone.register_forward_hook(note)
    return calls
