"""Sub-command ``scaling``: cost of our operator against every size."""
from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from shiftwise_mm.ops import ShiftSpec

from .case import Case
from .contestants import Runner, check, our_forms
from .counts import conv_work
from .memory import peak_memory
from .report import Goal, Report, Table
from .settings import Settings
from .timing import measure
from .trial import mega, percents

__all__ = ['run_scaling']

LINEAR = ('B', 'C', 'H*W')  # the cost must be proportional to these
TOLERANCE = .1


@dataclass(frozen=True)
class _Point:
    """One setting of everything that the cost depends on."""

    shape: tuple[int, int, int, int]
    large: int
    small: int
    reps: int
    density: float
    threads: int

    def case(self, device: torch.device) -> Case:
        spec = ShiftSpec.from_seed(
            channels=self.shape[1], large_kernel=self.large,
            small_kernel=self.small, num_reps=self.reps)
        return Case(spec, self.shape, device, density=self.density)


def _sweeps(base: _Point, threads: int) -> dict[str, list]:
    """For each axis its values and the points there."""
    b, c, h, w = base.shape
    n = base.small

    def shapes(values: Sequence, make) -> list:
        return [(value, replace(base, shape=make(value)))
                for value in values]

    taps = sorted({t for t in (2, 4, 8, -(-base.large // n))})
    return {
        'B': shapes([b, 2 * b, 4 * b], lambda v: (v, c, h, w)),
        'C': shapes([c, 2 * c, 4 * c], lambda v: (b, v, h, w)),
        'H*W': [(h * f * w * g, replace(base, shape=(b, c, h * f, w * g)))
                for f, g in ((1, 1), (1, 2), (2, 2))],
        'k': [(t, replace(base, large=t * n)) for t in taps],
        'reps': [(r, replace(base, reps=r)) for r in (1, 2, 4, 8)],
        'density': [(d, replace(base, density=d, reps=1))
                    for d in (.05, .125, .25, .5, .75, 1.)],
        'threads': [(t, replace(base, threads=t)) for t in sorted(
            {1, threads, *(t for t in (2, 4, 8, 16) if t < threads)})],
    }


def run_scaling(settings: Settings, *,
                shape: Sequence[int] = (4, 60, 56, 56),
                batch: int | None = None,
                kernel: Sequence[int] = (51, 3),
                num_reps: int = 4) -> Report:
    """Cost of the operator, one axis at a time around a base.

    All points of an axis and of a form are measured interleaved (those of
    different thread counts one after the other: changing the count costs).

    Args:
        settings (Settings): Device, time; its ``rows`` choose axes.
        shape (Sequence[int]): ``(B, C, H, W)`` of the base.
        batch (int, optional): Takes the place of ``B``.
        kernel (Sequence[int]): ``(M, N)``.
        num_reps (int): ``R``.

    Raises:
        TypeError, ValueError: If an argument is not allowed.
        Disagreement: If a form computes something else.
    """
    shape = (batch or shape[0], *shape[1:])
    with settings.start('scaling') as (device, peaks, report):
        threads = torch.get_num_threads()
        sweeps = _sweeps(_Point(shape, *kernel, num_reps, 1., threads),
                         min(os.cpu_count() or 1, 2 * threads)
                         if device.type == 'cpu' else threads)
        for axis in _axes(list(sweeps), settings.rows):
            if axis == 'threads' and device.type != 'cpu':
                continue
            table = Table(f'scaling with {axis}, base {shape}, M {kernel[0]},'
                          f' N {kernel[1]}, reps {num_reps}')
            table.rows = list(_rows(settings, device, peaks, axis,
                                    sweeps[axis]))
            table.notes.append(
                'a unit: the time over the time that the first row of the '
                'form would have if cost were proportional')
            report.tables.append(table)
            if axis in LINEAR:
                report.goals += _goals(axis, table)
    return report


def _axes(axes: list[str], rows: list[str] | None) -> list[str]:
    if rows is None:
        return axes
    known = {axis.lower(): axis for axis in axes}
    for row in rows:
        if row.lower() not in known:
            raise ValueError(f'no axis is called {row!r}; there are {axes}')
    return [axis for axis in axes if axis.lower() in
            [row.lower() for row in rows]]


def _rows(settings: Settings, device: torch.device, peaks, axis: str,
          points: list) -> Iterator[dict]:
    """Measures every form at every point; one row each."""
    runners = {}
    for value, point in points:
        torch.set_num_threads(point.threads)
        case = point.case(device)
        for contestant in our_forms(case):
            runner = Runner(contestant, case.grads)
            check(runner, case)
            runners[contestant.name, value] = runner, point, case
    forward, both = ({}, {})
    for threads in sorted({point.threads for _, point, _ in
                           runners.values()}):
        torch.set_num_threads(threads)
        here = {key: runner for key, (runner, point, _) in runners.items()
                if point.threads == threads}
        for what, times in (('forward', forward), ('both', both)):
            times.update(measure({key: getattr(runner, what)
                                  for key, runner in here.items()}, device,
                                 settings.budget))
    first: dict[str, tuple] = {}
    for key in sorted(runners, key=lambda key: key[0]):  # stable
        name, value = key
        runner, point, case = runners[key]
        torch.set_num_threads(point.threads)
        seconds = forward[key].median, both[key].median
        start = first.setdefault(name, (value, *seconds))
        growth = value / start[0]
        if axis == 'threads':
            growth = 1 / growth
        work = conv_work(case.spec, case.shape, case.outputs,
                         density=case.density)
        yield {
            'form': name,
            axis: value,
            'forward ms': 1e3 * seconds[0],
            'a unit': seconds[0] / start[1] / growth,
            **percents(peaks, seconds[0], work),
            'fwd+bwd ms': 1e3 * seconds[1],
            'a unit ': seconds[1] / start[2] / growth,
            'forward MB': mega(peak_memory(runner.forward, device)),
            'fwd+bwd MB': mega(peak_memory(runner.both, device)),
            'repeats': f'{forward[key].repeats}/{both[key].repeats}',
        }


def _goals(axis: str, table: Table) -> list[Goal]:
    """P10: nothing grows faster than the size, but for a tenth."""
    rows = [row for row in table.rows if row['form'] == 'ours, auto']
    return [
        Goal('P10', f'{what} cost of a unit when {axis} grows, share of the '
             "smallest's", 1 + TOLERANCE, max(row[column] for row in rows),
             at_least=False, unit='')
        for what, column in (('forward', 'a unit'), ('fwd+bwd', 'a unit '))
    ]
