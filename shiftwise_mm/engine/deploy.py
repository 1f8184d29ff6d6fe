"""A trained model in its deployed form: a checkpoint and a config for it."""
from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn as nn
from mmengine.config import Config
from torch import Tensor

from shiftwise_mm.checkpoint.convert import first_few
from shiftwise_mm.checkpoint.describe import describe_model
from shiftwise_mm.checkpoint.loading import find_backbones
from shiftwise_mm.registry import MODELS
from shiftwise_mm.swap.text import base_of
from shiftwise_mm.version import __version__

from .deployables import find_deployables
from .inputs import InputError
from .model_files import (
    build_model,
    extractors,
    input_channels,
    load_weights,
    read_model_config,
    size_of,
)

__all__ = ['Deployment', 'Parity', 'deploy_changes', 'deploy_files']

# Largest error of an output, of its largest value, that rounding explains.
TOLERANCE = 1e-4
_IMAGE = (131, 97)  # odd, and larger than the kernels


@dataclass(frozen=True)
class Parity:
    """How far two computations of one output are apart.

    Args:
        name (str): Of the output.
        shape (tuple[int]): Of the output.
        error (float): Largest absolute difference.
        largest (float): Largest absolute value.
    """

    name: str
    shape: tuple[int, ...]
    error: float
    largest: float

    @classmethod
    def of(cls, name: str, actual: Tensor, expected: Tensor) -> Parity:
        """Compares two tensors of one shape."""
        return cls(name, tuple(expected.shape),
                   (actual - expected).abs().max().item(),
                   expected.abs().max().item())

    def holds(self, tolerance: float) -> bool:
        """Whether the error is at most a share of the largest value."""
        return self.error <= tolerance * max(self.largest, 1e-30)

    def __str__(self) -> str:
        shape = 'x'.join(map(str, self.shape))
        return (f'{self.name}  {shape}  max abs error {self.error:.2e} of '
                f'{self.largest:.4g}')


@dataclass(frozen=True)
class Deployment:
    """What was written; ``str()`` is what is shown.

    Args:
        checkpoint, config (Path): The files.
        source (str): The checkpoint that was read.
        deployed (tuple[str]): Names of the modules in their deployed form.
        parity (tuple[Parity]): Outputs of the backbones of the model that
            was trained against those of the files, read again.
        left_out (tuple[str]): Tensors of the source for which the model has
            no place.
    """

    checkpoint: Path
    config: Path
    source: str
    deployed: tuple[str, ...]
    parity: tuple[Parity, ...]
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f'deployed {", ".join(self.deployed)}',
                 'outputs of the file read again against the original, '
                 f'random image of {_IMAGE[0]}x{_IMAGE[1]}:',
                 *(f'  {parity}' for parity in self.parity)]
        if self.left_out:
            lines.append(f'left out, the model has no place for '
                         f'{len(self.left_out)} tensors: '
                         f'{first_few(self.left_out)}')
        before = f' from {size_of(Path(self.source))}' \
            if Path(self.source).is_file() else ''
        return '\n'.join((
            *lines, f'wrote {self.checkpoint} ({size_of(self.checkpoint)}'
            f'{before})', f'wrote {self.config}'))


def deploy_files(config: str, checkpoint: str, out: str | os.PathLike, *,
                 standalone: bool = False, force: bool = False) -> Deployment:
    """Writes a deployed checkpoint, and beside it a config that takes it.

    The config inherits from ``config`` and sets ``deploy=True`` where
    modules of ours are built, two lines in all as a rule. It names a base by
    its absolute path, or as ``'mmdet::...'`` inside a package. The
    checkpoint holds all of the model, and ``meta`` of its source with the
    whole deployed config as ``cfg``, by which inferencers build the model.
    What only goes on with a training (optimizer, source of an average) is
    left out.

    Both files are read again before they get their names: the model built by
    them must give the outputs of the original up to rounding.

    Args:
        config (str): Path, or ``'mmdet::...'``.
        checkpoint (str): Path or URL, with all of the model.
        out (str): Checkpoint to write, ``NAME.pth``; the config becomes
            ``NAME.py``.
        standalone (bool): Whether the config is written whole, without a
            base. Defaults to False.
        force (bool): Whether to overwrite.

    Raises:
        FileExistsError: If one of the files exists and ``force`` is False.
        InputError: If an input cannot be used, there is nothing to deploy, a
            norm has no running statistics, or outputs differ by more than
            rounding.
    """
    out = Path(out)
    config_out = out.with_suffix('.py')
    if out.suffix != '.pth':
        raise InputError(f'out must end in .pth, got {str(out)!r}')
    if not out.parent.is_dir():
        raise InputError(f'{out.parent} is no folder')
    for path in (out, config_out):
        if path.exists() and not force:
            raise FileExistsError(f'{path} exists')
    cfg = read_model_config(config)
    changes = deploy_changes(cfg)
    original = build_model(cfg)
    meta, left_out = load_weights(original, checkpoint)
    deployed = copy.deepcopy(original)
    names = [name or type(module).__name__
             for name, module in find_deployables(deployed)]
    if not names:
        raise InputError(f'the model of {config} has nothing to deploy, or '
                         'is deployed already')
    for name, module in list(find_deployables(deployed)):
        try:
            module.switch_to_deploy()
        except (TypeError, ValueError) as error:
            raise InputError(f'{name} cannot be deployed: {error}') from error
    whole = copy.deepcopy(cfg)
    whole.merge_from_dict(dict(model=changes))
    text = whole.pretty_text if standalone else _two_lines(config, changes)
    parts = [path.with_name(f'.{path.stem}.{os.getpid()}{path.suffix}')
             for path in (out, config_out)]
    try:
        torch.save(_content(deployed, meta, whole), parts[0])
        parts[1].write_text(text, encoding='utf-8')
        parity = _compare(original, *parts)
        parts[0].replace(out)
        parts[1].replace(config_out)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    return Deployment(out, config_out, checkpoint, tuple(names), parity,
                      tuple(left_out))


def _content(model: nn.Module, meta: dict, cfg: Config) -> dict:
    """What the deployed checkpoint holds."""
    content = dict(
        meta={**meta, 'cfg': cfg.pretty_text, 'shiftwise_mm': __version__,
              'form': 'deploy'},
        state_dict={name: value.contiguous()
                    for name, value in model.state_dict().items()})
    backbones = [module for _, module in find_backbones(model)]
    facts = describe_model(backbones[0]) if len(backbones) == 1 else None
    if facts is not None and facts.taps:
        # Names as in published files: shapes cannot tell 49 from 51.
        content['args'] = dict(
            kernel_size=[*facts.kernel_sizes, facts.small_kernel])
    return content


@torch.no_grad()
def _compare(original: nn.Module, checkpoint: Path,
             config: Path) -> tuple[Parity, ...]:
    """Outputs of the original against those of the files."""
    again = build_model(read_model_config(str(config)))
    left = [name for name, _ in find_deployables(again)]
    if left:
        raise InputError(f'a config cannot tell that {first_few(left)} is '
                         'deployed: nothing was written')
    load_weights(again, str(checkpoint))
    generator = torch.Generator().manual_seed(0)
    found = []
    for (name, one), (_, other) in zip(extractors(original),
                                       extractors(again), strict=True):
        image = torch.randn(1, input_channels(one), *_IMAGE,
                            generator=generator)
        for i, (a, b) in enumerate(zip(_tensors(other(image)),
                                       _tensors(one(image)), strict=True)):
            found.append(Parity.of(f'{name} output {i}'.lstrip(), a, b))
    wrong = [parity for parity in found if not parity.holds(TOLERANCE)]
    if wrong or not found:
        raise InputError(
            'the outputs of the deployed form differ by more than rounding '
            f'({TOLERANCE:g}): ' + '; '.join(map(str, wrong))
            + ': nothing was written')
    return tuple(found)


def _tensors(outputs) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, Mapping):
        outputs = list(outputs.values())
    return [tensor for output in outputs for tensor in _tensors(output)]


def deploy_changes(cfg: Config) -> dict:
    """What a config must change in ``model`` to build it deployed.

    Every part whose type is of ours and takes ``deploy``, wherever it is;
    lists, which a config replaces as a whole, are given whole.

    Args:
        cfg (Config): With ``model``; not changed.

    Raises:
        InputError: If no part of it takes ``deploy``.
    """
    scope = cfg.get('default_scope')
    changes = _changes(cfg.to_dict()['model'], scope)
    if changes is None:
        raise InputError(f'{cfg.filename} has nothing to deploy: no type of '
                         'shiftwise_mm in its model takes deploy')
    return changes


def _changes(node, scope: str | None):
    """The parts of a node that change; None for nothing."""
    if isinstance(node, Mapping):
        found = {key: change for key, value in node.items()
                 if (change := _changes(value, scope)) is not None}
        if _takes_deploy(node.get('type'), scope):
            found['deploy'] = True
        return found or None
    if isinstance(node, (list, tuple)):
        found = [_changes(item, scope) for item in node]
        if any(change is not None for change in found):
            return [_merged(item, change)
                    for item, change in zip(node, found, strict=True)]
    return None


def _merged(node, change):
    if change is None or not isinstance(node, Mapping):
        return node if change is None else change
    return {**node, **{key: _merged(node.get(key), value)
                       for key, value in change.items()}}


def _takes_deploy(kind, scope: str | None) -> bool:
    if kind is None:
        return False
    if not isinstance(kind, str):
        kind = f'{kind.__module__}.{kind.__name__}'
    first, *rest = kind.split('.')
    if (first if rest else scope) != 'shiftwise_mm':
        return False
    MODELS.import_from_location()
    built = MODELS.module_dict.get((rest or [first])[-1])
    return built is not None and \
        'deploy' in inspect.signature(built).parameters


def _two_lines(config: str, changes: dict) -> str:
    base = base_of(config)
    if '::' not in base:
        base = Path(config).expanduser().resolve().as_posix()
    return f'_base_ = {base!r}\nmodel = {_code(changes)}\n'


def _code(value) -> str:
    """A value as a config writes it."""
    if isinstance(value, Mapping) and all(
            isinstance(key, str) and key.isidentifier() for key in value):
        return 'dict({})'.format(', '.join(
            f'{key}={_code(item)}' for key, item in value.items()))
    if isinstance(value, list):
        return f'[{", ".join(map(_code, value))}]'
    return repr(value)
