"""Parameters and multiply-adds of models, by mmengine's counter."""
from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn as nn
from mmengine.analysis import FlopAnalyzer, parameter_count
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope

from shiftwise_mm.config_paths import config_path
from shiftwise_mm.ops import available_forms
from shiftwise_mm.ops.spec import check_int

from .composition import published_composition, shift_layers
from .feeding import fed

__all__ = ['Complexity', 'Report', 'count_config', 'count_model',
           'read_config']


@dataclass(frozen=True)
class Complexity:
    """What one forward pass of one image costs.

    Attributes:
        params (int): Parameters, auxiliary heads included.
        macs (int): Multiply-adds as mmengine's ``FlopAnalyzer`` counts them:
            convolutions, matrix products, norms, interpolations.
        backbone_params (int, optional): Those of the backbone; None if no
            module is called ``backbone``.
        backbone_macs (int, optional): Likewise.
        shift_adds (int): Additions of the shift-adds, not in ``macs``.
    """

    params: int
    macs: int
    backbone_params: int | None = None
    backbone_macs: int | None = None
    shift_adds: int = 0


@dataclass(frozen=True)
class Report:
    """A model as published and as it runs.

    Attributes:
        published (Complexity): With the published composition of its
            shift-wise convolutions.
        running (Complexity, optional): In the form that runs; None without
            shift-wise convolutions.
        form (str, optional): That form: ``'strip'``, ``'shift'`` or
            ``'deploy'``.
    """

    published: Complexity
    running: Complexity | None = None
    form: str | None = None


def _backbones(model: nn.Module) -> list[str]:
    """Outermost modules called ``backbone``; nested models have several."""
    found: list[str] = []
    for name, _ in model.named_modules():
        if name.rpartition('.')[2] == 'backbone' and not any(
                name.startswith(f'{other}.') for other in found):
            found.append(name)
    return found


def count_model(model: nn.Module, shape: tuple[int, int], *,
                published: bool = False) -> Complexity:
    """Counts parameters and multiply-adds of any model.

    Args:
        model (nn.Module): A detector, segmentor, or a module that takes a
            batch of images; on return it is as it was.
        shape (tuple[int, int]): Height and width of the image in pixels.
        published (bool): Whether to count the published composition of
            shift-wise convolutions instead of the form that runs; only then
            ``shift_adds`` is given. Defaults to False.

    Raises:
        TypeError: If ``shape`` does not hold integers.
        ValueError: If they are not positive, or the published composition of
            a deployed model is asked for.
    """
    height, width = shape
    shape = (check_int('height', height, 1), check_int('width', width, 1))
    composition = published_composition(model) if published \
        else nullcontext([])
    with composition as additions, fed(model, shape) as inputs:
        counter = FlopAnalyzer(model, inputs)
        counter.unsupported_ops_warnings(False)
        counter.uncalled_modules_warnings(False)
        counter.tracer_warnings('none')
        macs = int(counter.total())
        backbones = _backbones(model)
        backbone_macs = int(sum(map(counter.total, backbones)))
    params = parameter_count(model)
    return Complexity(
        params[''], macs,
        sum(params[name] for name in backbones) if backbones else None,
        backbone_macs if backbones else None, sum(additions))


def read_config(path: str | Path, options: dict | None = None) -> Config:
    """A config file with options merged in, as ``--cfg-options`` gives them.

    Args:
        path (str | Path): A config of mmengine's, or ``'mmdet::...'``.
        options (dict, optional): Values by dotted key. A key may be new in
            a part of the config that is there, but not open another part.

    Raises:
        FileNotFoundError: If there is no such file or package.
        ValueError: If the file is no Python, a key has no place in it, or
            it holds no model.
    """
    try:
        cfg = Config.fromfile(config_path(str(path)))
    except SyntaxError as error:
        raise ValueError(f'{path} is no config: {error}') from error
    for key in options or {}:
        if not _has_place(cfg, key):
            raise ValueError(f'no such key in {path}: {key!r}')
    cfg.merge_from_dict(options or {})
    if not isinstance(cfg.get('model'), dict):
        raise ValueError(f'{path} holds no model')
    return cfg


def _has_place(cfg: Config, key: str) -> bool:
    """Whether all of a dotted key but its last part leads to a dict."""
    *parents, last = key.split('.')
    node = cfg
    for part in parents:
        if isinstance(node, (list, tuple)) and part.isdigit():
            node = dict(enumerate(node)).get(int(part))
        else:
            node = node.get(part) if isinstance(node, (dict, Config)) else None
    return isinstance(node, dict) if parents else last in cfg


def _build(cfg: dict) -> nn.Module:
    """A model without mmcv's SyncBN, which runs in process groups only."""
    return revert_sync_batchnorm(MODELS.build(cfg))


def _not_deployed(node):
    """A copy of a config in which our modules are not deployed."""
    if isinstance(node, dict):
        ours = str(node.get('type')).startswith('shiftwise_mm.')
        return {key: False if ours and key == 'deploy' else
                _not_deployed(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(map(_not_deployed, node))
    return node


def _form_of(model: nn.Module) -> str | None:
    """The form in which the shift-wise convolutions of a model run."""
    layers = shift_layers(model)
    if not layers:
        return None
    if layers[0].deploy:
        return 'deploy'
    if layers[0].form != 'auto':
        return layers[0].form
    # The count is made by a trace, which holds strips where the fused kernel
    # runs: as many multiply-adds at most.
    reasons = available_forms(torch.empty(0))
    return next(name for name, why in reasons.items()
                if why is None and name != 'fused')


def count_config(cfg: Config, shape: tuple[int, int]) -> Report:
    """Counts the model of a config as published and as it runs.

    Args:
        cfg (Config): With ``model``, and ``default_scope`` where its types
            need one.
        shape (tuple[int, int]): Height and width of the image in pixels.

    Raises:
        TypeError, ValueError, KeyError: If the model cannot be built or the
            shape is not allowed.
    """
    with DefaultScope.overwrite_default_scope(
            cfg.get('default_scope') or 'mmengine'):
        model = _build(cfg.model)
        form = _form_of(model)
        if form is None:
            return Report(count_model(model, shape))
        running = count_model(model, shape)
        if form == 'deploy':
            model = _build(_not_deployed(cfg.model.to_dict()))
        published = count_model(model, shape, published=True)
    if form == 'shift':
        running = replace(running, shift_adds=published.shift_adds)
    return Report(published, running, form)
