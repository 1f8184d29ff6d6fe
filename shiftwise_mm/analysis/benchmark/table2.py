"""Sub-command ``table2``: sparse layers at the seed paper's densities."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from shiftwise_mm.ops import ShiftSpec

from .case import Case
from .contestants import Runner, check, conv_contestants, our_forms, select
from .counts import conv_work
from .dense import DENSE
from .machine import Peaks
from .report import Goal, Report, Table
from .settings import Settings
from .timing import Timing, measure
from .trial import percents

__all__ = ['run_table2', 'STAGES', 'Stage']

OUTPUTS = ('h', 'v')


@dataclass(frozen=True)
class Stage:
    """A row of the paper's table 2.

    Attributes:
        channels (int): ``C``.
        large_kernel (int): ``M``; ``N`` is 5, so ``k`` is 11, 10, 9 and 3.
        density (float): Share of the taps that training has kept.
        blocks (int): Layers of this kind in the network.
        number (int): Of the stage.
    """

    channels: int
    large_kernel: int
    density: float
    blocks: int
    number: int

    @property
    def name(self) -> str:
        return f'stage {self.number}'


STAGES = (Stage(124, 51, .2339, 3, 0), Stage(249, 49, .6012, 3, 1),
          Stage(499, 45, .5925, 9, 2), Stage(998, 13, .9225, 3, 3))


@dataclass(frozen=True)
class _Times:
    """Medians of one stage in seconds, forward and with the gradients.

    Attributes:
        name (str): Of the fastest dense form in plain torch.
        torch (float): Of that form.
        dense, sparse (float): Of our ``auto``.
        fused_dense, fused_sparse (float, optional): Of the fused form.
    """

    name: str
    torch: float
    dense: float
    sparse: float
    fused_dense: float | None
    fused_sparse: float | None


def run_table2(settings: Settings, *, batch: int = 4,
               size: Sequence[int] = (56, 56)) -> Report:
    """Layers of both directions, one path and one repetition, with masks.

    For each stage all forms with a random mask of its density are measured
    beside themselves with all taps, and beside the dense pair in plain torch.
    So it is told how much is the kernel and how much the sparsity.

    Args:
        settings (Settings): Device, time; its ``rows`` choose stages.
        batch (int): ``B``. Defaults to 4.
        size (Sequence[int]): ``(H, W)`` of stage 0, which each stage halves.

    Raises:
        TypeError, ValueError: If an argument is not allowed.
        Disagreement: If a contestant computes something else.
    """
    stages = select(list(STAGES), settings.rows)
    with settings.start('table2') as (device, peaks, report):
        results = []
        for stage in stages:
            shape = (batch, stage.channels,
                     *(max(side >> stage.number, 1) for side in size))
            spec = ShiftSpec.from_seed(
                channels=stage.channels, large_kernel=stage.large_kernel,
                small_kernel=5)
            results.append((stage, spec, shape, _measured(
                settings, device, spec, shape, stage.density)))
        for index, what in enumerate(('forward', 'forward and backward')):
            report.tables.append(_table(
                f'table 2 of the seed paper, batch {batch}, N 5, both '
                f'directions, {what}', [(*rest, times[index])
                                        for *rest, times in results], peaks,
                index == 1))
        if tuple(stages) == STAGES and tuple(size) == (56, 56):
            report.goals += _goals([(stage, times)
                                    for stage, *_, times in results])
    return report


def _measured(settings: Settings, device: torch.device, spec: ShiftSpec,
              shape: tuple, density: float) -> tuple[_Times, _Times]:
    """All contestants of a stage, interleaved; none before they agree."""
    dense = Case(spec, shape, device, OUTPUTS)
    sparse = Case(spec, shape, device, OUTPUTS, density=density)
    runners = {}
    for case, found in ((dense, [c for c in conv_contestants(dense)
                                 if c.name in DENSE or c.kind == 'ours']),
                        (sparse, our_forms(sparse))):
        for contestant in found:
            runner = Runner(contestant, case.grads)
            check(runner, case)
            runners[contestant.name, case.density] = runner
    return tuple(_times(measure(
        {key: getattr(runner, what) for key, runner in runners.items()},
        device, settings.budget), density) for what in ('forward', 'both'))


def _times(measured: dict[tuple[str, float], Timing],
           density: float) -> _Times:
    medians = {key: timing.median for key, timing in measured.items()}
    name = min(DENSE, key=lambda name: medians[name, 1.])
    return _Times(name, medians[name, 1.], *(
        medians.get((form, which)) for form in ('ours, auto', 'ours, fused')
        for which in (1., density)))


def _table(title: str, rows: list, peaks: Peaks, both: bool) -> Table:
    table = Table(title)
    total = dict.fromkeys(('torch', 'dense', 'sparse'), 0.)
    for stage, spec, shape, times in rows:
        work = conv_work(spec, shape, OUTPUTS, backward=both,
                         density=stage.density)
        table.rows.append({
            'layer': f'{stage.name}, {tuple(shape)}, M {spec.large_kernel}',
            'density': stage.density,
            **_cells(times.torch, times.dense, times.sparse),
            'fused of itself dense': times.fused_dense and
            times.fused_sparse / times.fused_dense,
            **percents(peaks, times.sparse, work),
            'fastest in torch': times.name,
        })
        for name in total:
            total[name] += stage.blocks * getattr(times, name)
    table.rows.append({
        'layer': 'blocks of all, ' + ', '.join(
            str(stage.blocks) for stage, *_ in rows),
        'density': None, **_cells(*total.values()),
        'fused of itself dense': None, '% GMAC/s': None, '% GB/s': None,
        'fastest in torch': None})
    table.notes += [
        'torch: the fastest dense pair in plain torch; dense, sparse: '
        'ours, auto, with all taps and with the mask',
        'of torch: how much kernel and sparsity save together; of dense: '
        'how much the sparsity alone']
    return table


def _cells(dense_torch: float, dense: float, sparse: float) -> dict:
    return {'torch ms': 1e3 * dense_torch, 'dense ms': 1e3 * dense,
            'sparse ms': 1e3 * sparse, 'of torch': sparse / dense_torch,
            'of dense': sparse / dense}


def _goals(results: list) -> list[Goal]:
    """P9: shares, the smaller the better."""
    forward, both = results[0][1]
    ours, peers = (sum(stage.blocks * getattr(times[0], name)
                       for stage, times in results)
                   for name in ('sparse', 'torch'))
    shares = [('stage 0 forward, share of the fastest dense form in torch',
               .3, forward.sparse / forward.torch),
              ('all blocks forward, share of the fastest dense forms in '
               'torch', .55, ours / peers),
              ('stage 0 training step, share of the fastest dense form in '
               'torch', .1, both.sparse / both.torch)]
    if forward.fused_dense:
        shares.insert(1, ('stage 0 forward, share of the same kernel run '
                          'dense', .45,
                          forward.fused_sparse / forward.fused_dense))
    return [Goal('P9', what, asked, share, at_least=False, unit='')
            for what, asked, share in shares]
