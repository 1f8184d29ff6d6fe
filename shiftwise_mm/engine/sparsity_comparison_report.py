"""What came out of dense and sparse trainings, in Markdown."""
from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

from shiftwise_mm.analysis.benchmark.agreement import check_near
from shiftwise_mm.analysis.benchmark.machine import provenance
from shiftwise_mm.analysis.benchmark.report import Table, write_whole
from shiftwise_mm.analysis.benchmark.timing import Budget, measure
from shiftwise_mm.datasets import CocoFolder, SegFolder
from shiftwise_mm.registry import MODELS
from shiftwise_mm.sparsity import find_targets

from .checkpoint_files import read_backbone
from .demo import image_scale
from .demo_seg import seg_image_scale
from .sparsity_comparison import Result
from .sparsity_report import report_file

__all__ = ['compare', 'write_report']

_FORMS = ('training form', 'deployed')
# Rounding through some six blocks.
_TOLERANCE = 1e-3


def compare(folder: CocoFolder | SegFolder, results: Sequence[Result],
            budget: Budget) -> str:
    """Accuracy, densities and time of the networks trained on a data set.

    Args:
        folder (CocoFolder or SegFolder): The data set.
        results (Sequence[Result]): Dense ones and sparse ones.
        budget (Budget): Time to measure each network, in each form.

    Returns:
        str: Markdown.

    Raises:
        Disagreement: If a deployed network computes something else.
        ValueError, OSError: If a checkpoint cannot be read.
    """
    by_label: dict[str, list[Result]] = {}
    for result in results:
        by_label.setdefault(result.run.label, []).append(result)
    tables = (_accuracies(by_label), _densities(by_label),
              _times(by_label, _image(folder), budget))
    return '\n'.join([f'## {folder.root.resolve().name}', '',
                      *(table.markdown() for table in tables)])


def write_report(sections: Sequence[str], out: str | os.PathLike) -> str:
    """Writes ``comparison.md`` into a folder, whole or not at all.

    Args:
        sections (Sequence[str]): Of :func:`compare`.
        out (str): The folder.

    Returns:
        str: The text.
    """
    facts = ', '.join(f'{name} {value}' for name, value in
                      provenance(torch.device('cpu')).items())
    text = '\n'.join(['# Dense against sparse', '',
                      f'Times measured with: {facts}.', '', *sections])
    write_whole(Path(out, 'comparison.md'), text)
    return text


def _accuracies(by_label: dict[str, list[Result]]) -> Table:
    dense = by_label['dense']
    rows = []
    for label, results in by_label.items():
        row: dict[str, object] = dict(training=label, runs=len(results))
        for name in dense[0].metrics:
            values = [r.metrics[name] for r in results]
            row[name] = _mean_and_range(values, '.4f')
            row[f'{name} against dense'] = None if label == 'dense' else \
                _against(_mean(values), [r.metrics[name] for r in dense])
        row['by seed'] = ', '.join(
            f'{next(iter(r.metrics.values())):.4f}' for r in results)
        rows.append(row)
    return Table('Accuracy', rows, [
        'Mean over the seeds (least - largest), then the first metric of '
        'each. *Against dense*: where the '
        'mean lies, seen from the range of the dense runs.'
    ])


def _against(mean: float, dense: list[float]) -> str:
    return 'below' if mean < min(dense) else \
        'above' if mean > max(dense) else 'within'


def _densities(by_label: dict[str, list[Result]]) -> Table:
    rows = []
    for label, results in by_label.items():
        if label == 'dense':
            continue
        shares = [report_file(r.checkpoint).shares() for r in results]
        for share, what in (('density', 'density'), ('union', 'union'),
                            ('places h', 'places')):
            rows.append(dict(training=label, share=what) | {
                stage: _mean_and_range([s[stage][share] for s in shares],
                                       '.2f') for stage in shares[0]})
    return Table('Small kernels kept', rows, [
        'Mean over the seeds (least - largest).',
        '*density*: of all paths; *union*: by any path; *places*: of those '
        'along the horizontal kernel, where a kept one lies in any '
        'repetition, all that inference has to compute.'
    ])


def _times(by_label: dict[str, list[Result]], image: Tensor,
           budget: Budget) -> Table:
    """All networks side by side, after they were compared."""
    calls: dict[tuple[str, str, int], Callable] = {}
    for label, results in by_label.items():
        for result in results:
            networks = _networks(result)
            expected, *others = (_outputs(n, image)
                                 for n in networks.values())
            for outputs in others:
                for i, (one, other) in enumerate(
                        zip(expected, outputs, strict=True)):
                    check_near(f'{result.run.name}, deployed', f'output {i}',
                               other, one, _TOLERANCE)
            calls.update({
                (label, form, result.run.seed): partial(
                    _outputs, network, image)
                for form, network in networks.items()})
    timings = measure(calls, image.device, budget)
    rows = []
    for label in by_label:
        for form in _FORMS:
            times, dense = ([timings[key].median * 1e3 for key in calls
                             if key[:2] == (name, form)]
                            for name in (label, 'dense'))
            rows.append({
                'training': label, 'form': form,
                'ms': _mean_and_range(times, '.1f'),
                'of dense': f'{_mean(times) / _mean(dense):.2f}'})
    height, width = image.shape[2:]
    return Table(f'Inference of the backbone, one image of {width}x{height}',
                 rows, [f'Mean over the seeds (least - largest) of the median '
                        f'of {min(t.repeats for t in timings.values())} or '
                        'more calls, those of all networks mixed.'])


def _networks(result: Result) -> dict[str, nn.Module]:
    """The trained backbone in its two forms."""
    weights = read_backbone(result.checkpoint)[0]
    network = MODELS.build(result.backbone)
    if result.run.sparsity is not None:
        find_targets(network, 'tap')  # adds the masks
    network.load_state_dict(weights)
    network.eval()
    deployed = copy.deepcopy(network)
    deployed.switch_to_deploy()
    return dict(zip(_FORMS, (network, deployed), strict=True))


@torch.no_grad()
def _outputs(network: nn.Module, image: Tensor) -> tuple[Tensor, ...]:
    return network(image)


def _image(folder: CocoFolder | SegFolder) -> Tensor:
    scale = image_scale if isinstance(folder, CocoFolder) else seg_image_scale
    width, height = scale(folder)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 3, height, width, generator=generator)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _mean_and_range(values: Sequence[float], digits: str) -> str:
    mean, low, high = (format(v, digits) for v in
                       (_mean(values), min(values), max(values)))
    return mean if low == high else f'{mean} ({low} - {high})'
