"""Any published or native file into a model that holds a backbone of ours."""
from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn as nn
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from .container import open_container
from .convert import ConversionReport, convert_state_dict, first_few
from .load_hook import check_args, drop_output_norms

__all__ = ['adapt_checkpoint', 'find_backbones', 'load_file',
           'load_pretrained']


def load_file(path: str | os.PathLike, map_location='cpu'):
    """``torch.load`` of a file or URL that runs nothing of it.

    Args:
        path (str): A file, or a URL with a scheme that mmengine knows.
        map_location: Where tensors go, as of ``torch.load``.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it holds something other than weights and plain data,
            or is no checkpoint.
    """
    path = os.fspath(path)
    try:
        if '://' in path:
            return CheckpointLoader.load_checkpoint(path, map_location)
        return torch.load(os.path.expanduser(path), map_location=map_location,
                          weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f'{path} is refused: {_reason(error)}') from error
    except (RuntimeError, EOFError, KeyError, IndexError) as error:
        reason = (str(error) or type(error).__name__).partition('\n')[0]
        raise ValueError(f'{path} cannot be read as a checkpoint: '
                         f'{reason}') from error


def _reason(error: Exception) -> str:
    text = str(error)
    name = re.search(r'GLOBAL (\S+)', text)
    if name:
        return (f'it holds {name.group(1)}, and only tensors and plain data '
                'are loaded')
    reason = text.rpartition('WeightsUnpickler error: ')[2].strip()
    return reason.partition('\n')[0]


def find_backbones(model: nn.Module,
                   prefix: str = '') -> Iterator[tuple[str, nn.Module]]:
    """The backbones of ours in a model, each with its prefix.

    Wrappers such as ``DistributedDataParallel`` do not count in the prefix,
    as when mmengine loads.
    """
    model = _unwrapped(model)
    if hasattr(model, 'strict_load') and hasattr(model, 'stages'):
        yield prefix, model
        return
    for name, child in model.named_children():
        yield from find_backbones(child, f'{prefix}{name}.')


def adapt_checkpoint(
        model: nn.Module, checkpoint: Mapping, *, source: str = '',
        container: str | None = None
) -> tuple[dict[str, Tensor], ConversionReport]:
    """A checkpoint's weights under the names that a model gives them.

    Args:
        model (nn.Module): A backbone of ours, or a model that holds one.
        checkpoint (Mapping): What ``torch.load`` returned.
        source (str): For the report.
        container (str, optional): See
            :func:`~shiftwise_mm.checkpoint.container.open_container`.

    Raises:
        ValueError: If the model holds no backbone of ours, or the options in
            the checkpoint are not those of the backbone.
    """
    backbones = list(find_backbones(model))
    if not backbones:
        raise ValueError(f'{type(model).__name__} holds no backbone of '
                         'shiftwise_mm')
    opened = open_container(checkpoint, container)
    own = _unwrapped(model).state_dict()
    head = 'head.' if {'head.norm.weight', 'head.fc.weight'} <= set(own) \
        else None
    state_dict, report = {}, None
    for prefix, backbone in backbones:
        part, report = convert_state_dict(
            opened.state_dict, prefix=prefix, head=head)
        weights = {name[len(prefix):]: value for name, value in part.items()
                   if name.startswith(prefix)}
        check_args(backbone, weights, opened.args)
        report = drop_output_norms(
            part, report, {prefix + name for name in backbone.state_dict()},
            prefix)
        state_dict.update(part)
    fc = state_dict.get('head.fc.weight')
    if head and fc is not None and fc.shape != own['head.fc.weight'].shape:
        # Fine-tuning on other classes.
        why = (f'of {len(fc)} classes, the model has '
               f'{len(own["head.fc.weight"])}')
        dropped = {old: why for old, new in report.names.items()
                   if new in ('head.fc.weight', 'head.fc.bias')}
        for name in dropped:
            del state_dict[report.names[name]]
        report = report.ignoring(dropped)
    return state_dict, replace(report, source=source,
                               container=opened.container)


def load_pretrained(model: nn.Module, path: str | os.PathLike, *,
                    container: str | None = None) -> ConversionReport:
    """Loads a published or native file into a model.

    Args:
        model (nn.Module): A backbone of ours, an
            :class:`~shiftwise_mm.models.ImageClassifier`, or a detector or
            segmentor with a backbone of ours.
        path (str): A file or URL.
        container (str, optional): Where in the file the weights lie, such as
            ``'model_ema'``. Defaults to the first of ``'state_dict'``,
            ``'model'``, ``'model_ema'`` that is there.

    Returns:
        ConversionReport: What was loaded, which is also logged.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If the file is refused or unreadable, holds no weights, or
            those of another model (see the backbone's ``strict_load``).

    Example:
        >>> from shiftwise_mm.checkpoint import load_pretrained
        >>> from shiftwise_mm.models import ShiftWiseNet
        >>> report = load_pretrained(ShiftWiseNet('tiny'),
        ...                          'SW_unirep_T.pth')  # doctest: +SKIP
    """
    checkpoint = load_file(path)
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f'{path} holds a {type(checkpoint).__name__}, not a '
                         'checkpoint')
    state_dict, report = adapt_checkpoint(
        model, checkpoint, source=Path(path).name, container=container)
    target = _unwrapped(model)
    missing, unexpected = target.load_state_dict(state_dict, strict=False)
    back = {new: old for old, new in report.names.items()}
    report = report.ignoring({
        back[name]: 'the model has no place for it'
        for name in unexpected if name in back})
    print_log(str(report), logger='current')
    untouched = [name for name in missing
                 if not name.endswith('num_batches_tracked')]
    if untouched:
        print_log(f'not in {Path(path).name}: {first_few(untouched)}',
                  logger='current')
    return report


def _unwrapped(model: nn.Module) -> nn.Module:
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
