"""The report on the sparsity in a checkpoint file."""
from __future__ import annotations

import os
from pathlib import Path

from shiftwise_mm.analysis.sparsity import SparsityReport, find_tap_sets
from shiftwise_mm.checkpoint.describe import Facts

from .checkpoint_files import read_file
from .suggest import suggest_config

__all__ = ['report_file']

_IMAGE = 224  # pixels, as the published figures
_STRIDE = 4  # of the first stage of our backbones, the next twice that


def report_file(path: str | os.PathLike) -> SparsityReport:
    """Reports on the small kernels in a published or native file.

    Of a detector, segmentor, classifier or bare backbone, dense or sparse;
    also of other networks that hold
    :class:`~shiftwise_mm.models.ShiftWiseConv2d`. Masks in the file tell
    which taps are kept, else zeros of the weights.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If it is refused or unreadable, or holds no small kernels,
            as deployed networks do.
    """
    own, rest, report, facts = read_file(path)
    weights = {**rest, **own}
    config, remarks = suggest_config(facts) if facts.family else ({}, {})
    sets = find_tap_sets(weights, config.get('kernel_sizes', ()),
                         config.get('num_reps', 1)) if not facts.deploy \
        else []
    if not sets:
        raise ValueError(f'{path} holds no small kernels: '
                         + _reason(facts))
    notes = [f'Weights of `{report.source}`: '
             f'{report.recognised or "not a backbone of ours"}.']
    if not all(s.has_tables for s in sets):
        notes.append('The file holds no tables of shifts; they follow from '
                     + ', '.join(
                         f'{name} {config[name]}' +
                         (f' ({remarks[name]})' if name in remarks else '')
                         for name in ('kernel_sizes', 'small_kernel',
                                      'num_reps') if name in config) + '.')
    sizes = {f'stage{i}': _IMAGE // (_STRIDE * 2**i)
             for i in range(len(facts.depths))}
    known = {s.stage for s in sets} <= set(sizes)
    return SparsityReport(
        f'Sparsity of {Path(path).name}', sets, sizes if known else {},
        _IMAGE, notes)


def _reason(facts: Facts) -> str:
    if facts.deploy:
        return 'in its deployed form they are merged into strips'
    if facts.family:
        return f'it is a {facts.family}'
    return 'no layer of it is a shift-wise convolution or of a SLaK'
