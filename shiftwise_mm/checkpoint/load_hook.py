"""What every backbone does to weights before it loads them."""
from __future__ import annotations

import logging
import re
from collections.abc import Container, Mapping
from dataclasses import replace

import torch.nn as nn
from mmengine.logging import print_log
from torch import Tensor

from .compare import differences
from .container import CONTAINERS, open_container
from .convert import ConversionReport, convert_state_dict, first_few
from .describe import describe, describe_model

__all__ = ['check_args', 'drop_output_norms', 'prepare_state_dict']

_OUTPUT_NORM = re.compile(r'norm\d+\.(?:weight|bias)')
_MASK = re.compile(r'(.+\.large_kernel\.)mask(?:_[hv])?')


def prepare_state_dict(module: nn.Module, state_dict: dict, prefix: str,
                       *args) -> None:
    """Makes weights ready to be loaded; a ``load_state_dict`` pre-hook.

    It opens a container, converts published names, and fills in the tables
    that published files lack, all in place. Then it checks that the weights
    are of this very model: torch tells a pre-hook ``strict=True`` whatever
    the caller said, and mmengine only logs missing keys, so that strictness
    is an option of the backbone, ``module.strict_load``. Output norms may be
    absent, or have no place; a classifier is ignored, and so are masks of
    sparse training where the layer has none (their weights are zero).

    Args:
        module (nn.Module): A backbone, with ``strict_load``; its
            ``adapt_state_dict(state_dict, prefix)`` is called if it has one.
        state_dict (dict): What is being loaded; changed in place.
        prefix (str): Where the backbone lies in it.
        args: What else torch hands to a pre-hook.

    Raises:
        ValueError: If ``strict_load`` and the weights leave a part of the
            backbone untouched or have no place in it. The message starts
            with the likely causes.
    """
    container, options = '', None
    if not prefix and any(isinstance(state_dict.get(name), Mapping)
                          for name in CONTAINERS):
        opened = open_container(state_dict)
        container, options = opened.container, opened.args
        _replace(state_dict, opened.state_dict, '')
    own = module.state_dict()
    given = {name[len(prefix):]: value for name, value in state_dict.items()
             if name.startswith(prefix)}
    weights, report = convert_state_dict(given)
    report = replace(drop_output_norms(weights, report, own),
                     container=container)
    facts = describe(weights, options)
    if hasattr(module, 'adapt_state_dict'):
        module.adapt_state_dict(weights, '')
    report = _drop_masks(weights, report, own)
    tables = _tables_of(module, own)
    if weights:
        for name in tables:
            weights.setdefault(name, own[name])
    wrong = _misfits(weights, own)
    causes = differences(facts, describe_model(module)) if weights else []
    fits = not causes and not any(wrong.values())
    if module.strict_load and not fits:
        raise ValueError(_refusal(module, prefix, weights, own, causes, wrong,
                                  facts.family))
    warning = '' if fits else _listed(causes, wrong, weights, own)
    for name in (*wrong['another shape'], *wrong['unknown']):
        if name not in tables:  # whose disagreement is always an error
            del weights[name]
    _replace(state_dict, weights, prefix)
    if report.changed:
        print_log(str(report), logger='current')
    if warning:
        print_log(
            f'{type(module).__name__} loads what fits (strict_load=False): '
            f'{warning}', logger='current', level=logging.WARNING)


def check_args(module: nn.Module, weights: Mapping[str, Tensor],
               options: Mapping | None) -> None:
    """Compares the options of a published training with a backbone.

    Shapes cannot tell kernels of 49 and 51 apart, the options can.

    Args:
        module (nn.Module): A backbone.
        weights (Mapping): Native names to tensors, without a prefix.
        options (Mapping, optional): ``args`` of the file.

    Raises:
        ValueError: If ``module.strict_load`` and they disagree.
    """
    causes = differences(describe(weights, options), describe_model(module))
    if options and causes:
        text = f'{type(module).__name__} cannot load these weights: ' + \
            '; '.join(causes)
        if module.strict_load:
            raise ValueError(text)
        print_log(text, logger='current', level=logging.WARNING)


def drop_output_norms(weights: dict, report: ConversionReport,
                      own: Container[str],
                      prefix: str = '') -> ConversionReport:
    """Takes output norms out, in place, for which a model has no place."""
    back = {new: old for old, new in report.names.items()}
    homeless = [
        name for name in weights if name not in own
        and name.startswith(prefix)
        and _OUTPUT_NORM.fullmatch(name[len(prefix):])
    ]
    for name in homeless:
        del weights[name]
    return report.ignoring(dict.fromkeys(
        (back[name] for name in homeless),
        'an output norm that the model has not'))


def _drop_masks(weights: dict, report: ConversionReport,
                own: Mapping) -> ConversionReport:
    """Takes masks out, in place, of layers that are there without them."""
    homeless = [
        name for name in weights if name not in own
        and (found := _MASK.fullmatch(name))
        and any(other.startswith(found[1]) for other in own)
    ]
    for name in homeless:
        del weights[name]
    back = {new: old for old, new in report.names.items()}
    return report.ignoring(dict.fromkeys(
        (back[name] for name in homeless),
        'a mask of sparse training: the model has none, its weights are zero '
        'and may become others'))


def _replace(state_dict: dict, weights: Mapping, prefix: str) -> None:
    for name in [n for n in state_dict if n.startswith(prefix)]:
        del state_dict[name]
    state_dict.update((prefix + name, v) for name, v in weights.items())


def _tables_of(module: nn.Module, own: Mapping) -> list[str]:
    """Buffers that the options determine; published files lack them."""
    return [
        name for name, buffer in module.named_buffers()
        if name in own and not buffer.is_floating_point()
        and not name.endswith('num_batches_tracked')
    ]


def _misfits(weights: Mapping, own: Mapping) -> dict[str, list[str]]:
    return {
        'missing': [
            name for name in own if name not in weights
            and not _OUTPUT_NORM.fullmatch(name)
            and not name.endswith('num_batches_tracked')
        ],
        'another shape': [
            name for name, value in weights.items()
            if name in own
            and getattr(value, 'shape', None) != own[name].shape
        ],
        'unknown': [name for name in weights if name not in own],
    }


def _listed(causes: list, wrong: dict, weights: dict, own: dict) -> str:
    parts = list(causes)
    for problem, names in wrong.items():
        if not names:
            continue
        if problem == 'another shape':
            names = [f'{name} {tuple(getattr(weights[name], "shape", ()))} '
                     f'instead of {tuple(own[name].shape)}'
                     for name in names]
        parts.append(f'{problem}: {first_few(names)}')
    return '; '.join(parts)


def _refusal(module: nn.Module, prefix: str, weights: dict, own: dict,
             causes: list, wrong: dict, family: str | None) -> str:
    name = type(module).__name__
    if not weights:
        where = f'under {prefix!r}' if prefix else 'in the file'
        return (f'{name} cannot load these weights: all of its {len(own)} '
                f'tensors are missing, there are none {where}. Weights of a '
                'backbone or a classifier come into a larger model by '
                "init_cfg=dict(type='Pretrained', checkpoint=...) of the "
                'backbone, by shiftwise_mm.checkpoint.load_pretrained(model, '
                "path) or, as load_from, with dict(type='shiftwise_mm."
                "ConvertPretrainedHook') in custom_hooks")
    if family is None:
        causes = ['the file is none of ours, by its names, such as '
                  f'{first_few(weights, 3)}']
    elif not causes:
        causes = ['the file is incomplete or of another version'
                  if not wrong['another shape'] else
                  'the options of the backbone must be those of the file']
    return (f'{name} cannot load these weights: '
            + _listed(causes, wrong, weights, own)
            + '. strict_load=False loads what fits')
