"""Checkpoint files: what is in them, and conversion into ours."""
from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn as nn
from mmengine.config import Config
from torch import Tensor

from shiftwise_mm.checkpoint.container import open_container
from shiftwise_mm.checkpoint.convert import (
    ConversionReport,
    convert_state_dict,
    first_few,
    stage_densities,
)
from shiftwise_mm.checkpoint.describe import Facts, describe, describe_model
from shiftwise_mm.checkpoint.loading import load_file
from shiftwise_mm.config_paths import config_path
from shiftwise_mm.registry import MODELS
from shiftwise_mm.version import __version__

from .suggest import format_config, suggest_config

__all__ = [
    'FORMS', 'Conversion', 'Inspection', 'convert_file', 'inspect_file',
    'read_backbone', 'read_file'
]

FORMS = ('native', 'deploy', 'shiftwise')
_PREFIX = 'backbone.'
# Largest relative difference of outputs that rounding can explain.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint file holds; ``str()`` is what is shown.

    Args:
        report (ConversionReport): Of its names.
        facts (Facts): Of its backbone.
        densities (tuple[float]): Share of its large kernels' taps that are
            not zero, by stage.
        config (dict): Of a backbone that takes it.
        remarks (dict): How options were chosen that the file leaves open.
    """

    report: ConversionReport
    facts: Facts
    densities: tuple[float, ...]
    config: dict
    remarks: dict[str, str]

    def __str__(self) -> str:
        facts, config = self.facts, self.config
        arch = config['arch'] if isinstance(config['arch'], str) else \
            'none of the published ones'
        if config.get('width_factor', 1) != 1:
            arch += f', width_factor {config["width_factor"]}'
        rows = {
            'file': self.report.source,
            'recognised as': self.report.recognised,
            'weights in': ', '.join(filter(None, (
                self.report.container or 'no container',
                self.report.prefix and f'prefix {self.report.prefix}'))),
            'backbone': ', '.join(filter(None, (
                facts.family, facts.style, facts.form,
                'deployed' if facts.deploy else 'training form'))),
            'arch': f'{arch}: embed_dims {facts.embed_dims}, depths '
            f'{facts.depths}',
            'kernel sizes': str(config.get('kernel_sizes',
                                           facts.kernel_sizes or 7)),
        }
        if 'kernel_sizes' in self.remarks:
            rows['kernel sizes'] += f' ({self.remarks["kernel_sizes"]})'
        if facts.small_kernel:
            rows['small kernel'] = f'{facts.small_kernel}, taps {facts.taps}'
        if facts.family == 'ShiftWiseNet':
            rows['paths'] = str(facts.num_paths or 'merged')
            rows['repetitions'] = str(facts.num_reps or 'not in the file')
            rows['ghost ratio'] = (f'{config["ghost_ratio"]} (convolved '
                                   f'{facts.convolved})')
        rows['classifier'] = f'{facts.num_classes} classes' \
            if facts.num_classes else 'none'
        if self.densities:
            rows['density'] = ', '.join(f'{d:.4f}' for d in self.densities)
        width = max(map(len, rows))
        lines = [f'{name:<{width}}  {value}' for name, value in rows.items()]
        return '\n'.join((*lines, '', format_config(config, self.remarks)))


def inspect_file(path: str | os.PathLike) -> Inspection:
    """Tells what a published or native file holds.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If it is refused, unreadable or none of ours.
    """
    own, _, report, facts = read_backbone(path)
    config, remarks = suggest_config(facts)
    config['init_cfg'] = dict(type='Pretrained', checkpoint=str(path))
    return Inspection(report, facts, stage_densities(own), config, remarks)


@dataclass(frozen=True)
class Conversion:
    """How a file was converted; ``str()`` is what is shown.

    Args:
        report (ConversionReport): Of the names.
        assumed (dict): Options that the file leaves open, to what was
            assumed; the written file depends on them.
        parity (float): Largest difference between the outputs of the
            backbone with the weights read and of one built anew with those
            written, relative to the largest output, on random input.
    """

    report: ConversionReport
    assumed: dict[str, str]
    parity: float

    def __str__(self) -> str:
        return '\n'.join((
            str(self.report),
            *(f'assumed {name}: {text}'
              for name, text in self.assumed.items()),
            f'outputs differ by at most {self.parity:.3g} of the largest'))


def convert_file(src: str | os.PathLike, dst: str | os.PathLike, *,
                 to: str = 'native', config: str | None = None,
                 force: bool = False) -> Conversion:
    """Writes a published or native file as one of ours.

    Args:
        src (str): File to read.
        dst (str): File to write; weights beside the backbone, such as a
            classifier's, are in it too, the backbone then under
            ``backbone.``.
        to (str): ``'native'`` for our names and tables, ``'deploy'`` for the
            deployed form, ``'shiftwise'`` for SLaK with small kernels.
        config (str, optional): Config file with ``model``, whose backbone
            tells the options. Defaults to those that the file tells.
        force (bool): Whether to overwrite.

    Raises:
        FileExistsError: If ``dst`` exists and ``force`` is False.
        FileNotFoundError: If ``src`` or ``config`` does not exist.
        ValueError: If an option is not allowed, the file is refused, none of
            ours or of another backbone than ``config``, or the outputs
            differ by more than rounding.
    """
    if to not in FORMS:
        raise ValueError(f'to must be one of {FORMS}, got {to!r}')
    src, dst = Path(src), Path(dst)
    if dst.exists() and not force:
        raise FileExistsError(f'{dst} exists')
    if not dst.parent.is_dir():
        raise FileNotFoundError(f'{dst.parent} is no folder')
    own, rest, report, facts = read_backbone(src)
    options, remarks = (_backbone_of(config), {}) if config else \
        suggest_config(facts)
    assumed = {name: f'{options[name]} ({remark})'
               for name, remark in remarks.items()}
    source = _build(options, own)
    target = copy.deepcopy(source)
    if to == 'deploy':
        target.switch_to_deploy()
        options = {**options, 'deploy': True}
    elif to == 'shiftwise':
        if facts.family != 'SLaK':
            raise ValueError(f"to='shiftwise' is a form of SLaK, {src} holds "
                             f'a {facts.family}')
        target.switch_form('shiftwise')
        options = {**options, 'form': 'shiftwise'}
    # Only output norms that the source has.
    state_dict = {name: value for name, value in target.state_dict().items()
                  if name in own or not name.startswith('norm')}
    part = dst.with_name(f'.{dst.name}.part')
    try:
        _save(part, state_dict, rest, describe_model(target),
              dict(source=src.name, form=to, shiftwise_mm=__version__))
        parity = _difference(source, _build(options, _reload(part)))
        if not parity <= _TOLERANCE:
            raise ValueError(f'the outputs differ by {parity:.3g} of their '
                             f'largest value: {dst} was not written')
        part.replace(dst)
    finally:
        part.unlink(missing_ok=True)
    return Conversion(report, assumed, parity)


def read_file(path: str | os.PathLike
              ) -> tuple[dict, dict, ConversionReport, Facts]:
    """The weights in a published or native file, of whatever network.

    Returns:
        tuple: Native weights of the backbone; those beside it; the report on
        their names; facts of the backbone, ``Facts()`` if it is none of ours.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If it is refused, unreadable or holds no weights.
    """
    checkpoint = load_file(path)
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f'{path} holds a {type(checkpoint).__name__}, not a '
                         'checkpoint')
    try:
        opened = open_container(checkpoint)
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    weights, report = convert_state_dict(opened.state_dict, prefix=_PREFIX,
                                         head='head.')
    own = {name.removeprefix(_PREFIX): value
           for name, value in weights.items() if name.startswith(_PREFIX)}
    rest = {name: value for name, value in weights.items()
            if not name.startswith(_PREFIX)}
    facts = describe({**rest, **own}, opened.args)
    return own, rest, replace(report, source=str(path),
                              container=opened.container), facts


def read_backbone(path: str | os.PathLike
                  ) -> tuple[dict, dict, ConversionReport, Facts]:
    """The same of a backbone of ours.

    Raises:
        FileNotFoundError, ValueError: As :func:`read_file`; also if the file
            holds no backbone of ours.
    """
    own, rest, report, facts = read_file(path)
    if facts.family is None:
        raise ValueError(f'{path} is none of ours, by its names, such as '
                         f'{first_few(report.names, 2)}')
    return own, rest, report, facts


def _backbone_of(config: str) -> dict:
    try:
        model = Config.fromfile(config_path(config)).get('model')
    except FileNotFoundError:
        raise
    except Exception as error:  # a config is a program
        raise ValueError(f'{config} cannot be read: {error}') from error
    if model is None:
        raise ValueError(f'{config} has no model')
    options = {**model.get('backbone', model), 'strict_load': True}
    options.pop('init_cfg', None)
    return options


def _build(options: dict, weights: Mapping[str, Tensor]) -> nn.Module:
    try:
        backbone = MODELS.build(options)
    except (TypeError, KeyError) as error:
        raise ValueError(f'{options.get("type")} is no backbone of ours, or '
                         f'its options are wrong: {error}') from error
    backbone.load_state_dict(weights, strict=False)
    return backbone.eval()


def _save(path: Path, state_dict: dict, rest: dict, facts: Facts,
          meta: dict) -> None:
    prefix = _PREFIX if rest else ''
    content = dict(
        meta=meta,
        state_dict={**{prefix + name: value.contiguous()
                       for name, value in state_dict.items()}, **rest})
    if facts.taps:
        # Names as in published files: shapes cannot tell 49 from 51.
        content['args'] = dict(
            kernel_size=[*facts.kernel_sizes, facts.small_kernel])
    torch.save(content, path)


def _reload(path: Path) -> dict[str, Tensor]:
    return convert_state_dict(open_container(load_file(path)).state_dict)[0]


@torch.no_grad()
def _difference(one: nn.Module, other: nn.Module) -> float:
    generator = torch.Generator().manual_seed(0)
    channels = one.downsample_layers[0][0].in_channels
    x = torch.randn(1, channels, 64, 64, generator=generator)
    return max(((a - b).abs().max() / a.abs().max()).item()
               for a, b in zip(one(x), other(x), strict=True))
