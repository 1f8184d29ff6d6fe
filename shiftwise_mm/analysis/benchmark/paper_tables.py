"""Sub-commands ``table1`` and ``table3``: the seed paper's tables, here.

The published figures were measured on a GPU and stand beside those of this
device only as ratios to the depthwise convolution of the same column.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shiftwise_mm.ops import ShiftSpec

from .case import Case
from .contestants import (
    GROUPED,
    PUBLISHED,
    conv_contestants,
    select,
)
from .counts import conv_work
from .report import Goal, Report, Table
from .settings import Settings
from .trial import Figures, Trial, mega, percents, run_trial

__all__ = ['run_table1', 'run_table3']

DEPTHWISE = 'dense pair, contiguous, narrow'


@dataclass(frozen=True)
class _Row:
    """A row of a table.

    Attributes:
        label (str): As in the paper, or what is added to it.
        contestant (str, optional): Who runs it here; None if nobody does.
        published (tuple[float], optional): Milliseconds of each column.
    """

    label: str
    contestant: str | None
    published: tuple[float, ...] | None = None


_TABLE1 = (
    _Row('implicit-GEMM depthwise', None, (20.7, 40.6)),
    _Row('torch depthwise', DEPTHWISE, (15.4, 24.8)),
    _Row('torch depthwise, channels_last',
         'dense pair, channels_last, narrow'),
    _Row('grouped convolution alone', GROUPED, (25.0, 34.4)),
    _Row('+ slice shift', 'slicing', (40.3, 49.1)),
    _Row('+ Taichi shift', PUBLISHED, (31.9, 46.8)),
    _Row('ours, auto', 'ours, auto'),
)
_TABLE3 = (
    _Row('depthwise 51x5', DEPTHWISE, (11.85, )),
    _Row('depthwise 51x5, channels_last',
         'dense pair, channels_last, narrow'),
    _Row('grouped convolution', GROUPED, (20.97, )),
)
_SPARSE = _Row('shift-wise, density 0.25 (ours, auto)', 'ours, auto',
               (7.02, ))
_DENSITY = .25
_P9 = (124, 128, 128, 51, 5)  # channels, size and kernel of the goal


def _others(contestants: Sequence, rows: Sequence[_Row]) -> list[_Row]:
    """A row for each of our forms that has none yet."""
    named = {row.contestant for row in rows}
    return [_Row(c.name, c.name) for c in contestants
            if c.kind == 'ours' and c.name not in named]


def _chosen(contestants: Sequence, rows: Sequence[_Row],
            wanted: list[str] | None) -> list:
    """The contestants that the rows need, of those wanted.

    Ratios are to the depthwise convolution, so it always runs.
    """
    names = {row.contestant for row in rows}
    running = [c for c in contestants if c.name in names]
    chosen = select(running, wanted)
    return [c for c in running if c in chosen or c.name == DEPTHWISE]


def _cells(title: str, seconds: float | None,
           base: float | None, published: float | None,
           published_base: float) -> dict:
    return {
        f'{title} ms': seconds and 1e3 * seconds,
        f'{title} ratio': seconds and base and seconds / base,
        f'published {title} ms': published,
        f'published {title} ratio':
        published and published / published_base,
    }


def run_table1(settings: Settings, *, batch: int = 4,
               channels: int = 128, size: Sequence[int] = (56, 56),
               kernel: Sequence[int] = (51, 5)) -> Report:
    """Forward and backward of a depthwise ``M x N`` and its replacements.

    As in the paper one direction, tiled without a permutation; published
    with a batch of 90 on a GPU.

    Args:
        settings (Settings): Device, time, rows.
        batch (int): ``B``. Defaults to 4.
        channels (int): ``C``. Defaults to 128, the paper's.
        size (Sequence[int]): ``(H, W)``. Defaults to the paper's.
        kernel (Sequence[int]): ``(M, N)``. Defaults to the paper's.

    Raises:
        TypeError, ValueError: If an argument is not allowed.
        Disagreement: If a contestant computes something else.
    """
    spec = ShiftSpec.tiled(channels=channels, large_kernel=kernel[0],
                           small_kernel=kernel[1])
    shape = (batch, channels, *size)
    with settings.start('table1') as (device, peaks, report):
        case = Case(spec, shape, device, ('v', ))
        contestants = conv_contestants(case)
        rows = [*_TABLE1, *_others(contestants, _TABLE1)]
        trial = run_trial(_chosen(contestants, rows, settings.rows), case,
                          settings.budget)
        work = conv_work(spec, shape, case.outputs)
        base = trial.figures.get(DEPTHWISE)
        table = Table(f'table 1 of the seed paper at {shape}, M {kernel[0]}, '
                      f'N {kernel[1]}, one direction; published: '
                      '(90, 128, 56, 56) on a GPU')
        for row in rows:
            f = trial.figures.get(row.contestant)
            if f is None and row.published is None:
                continue
            published = row.published or (None, None)
            table.rows.append({
                'row': row.label,
                **_cells('forward', f and f.forward.median,
                         base and base.forward.median, published[0], 15.4),
                **_cells('backward', f and f.backward,
                         base and base.backward, published[1], 24.8),
                **_rest(f, peaks, work),
            })
        table.notes += _notes(trial, 'backward: forward and backward less '
                              'forward')
        report.tables.append(table)
    return report


def run_table3(settings: Settings, *, batch: int = 4,
               channels: int = 124, size: Sequence[int] = (128, 128),
               kernel: Sequence[int] = (51, 5)) -> Report:
    """Forward of a depthwise ``M x N`` beside sparse shift-wise.

    Both ratios stand there: to the depthwise convolution, and of the masked
    form to itself with all taps.

    Args:
        settings (Settings): Device, time, rows.
        batch (int): ``B``. Defaults to 4; the paper does not say its own.
        channels (int): ``C``. Defaults to 124, the paper's.
        size (Sequence[int]): ``(H, W)``. Defaults to the paper's.
        kernel (Sequence[int]): ``(M, N)``. Defaults to the paper's.

    Raises:
        TypeError, ValueError: If an argument is not allowed.
        Disagreement: If a contestant computes something else.
    """
    spec = ShiftSpec.tiled(channels=channels, large_kernel=kernel[0],
                           small_kernel=kernel[1])
    shape = (batch, channels, *size)
    with settings.start('table3') as (device, peaks, report):
        table = Table(f'table 3 of the seed paper at {shape}, M {kernel[0]}, '
                      f'N {kernel[1]}, one direction, forward; published: '
                      '(-, 124, 128, 128) on a GPU')
        base, dense = None, {}
        for density in (1., _DENSITY):
            case = Case(spec, shape, device, ('v', ), density=density)
            contestants = conv_contestants(case)
            if density == 1:
                rows = [*_TABLE3, *_others(contestants, _TABLE3)]
                running = _chosen(contestants, rows, settings.rows)
            else:
                rows = [_SPARSE, *_others(contestants, [_SPARSE])]
                running = [c for c in contestants if c.kind == 'ours']
            trial = run_trial(running, case, settings.budget)
            base = base or trial.figures.get(DEPTHWISE)
            dense = dense or trial.figures
            work = conv_work(spec, shape, case.outputs, density=density)
            for row in rows:
                f = trial.figures.get(row.contestant)
                if f is None:
                    continue
                table.rows.append({
                    'row': row.label,
                    'density': density,
                    **_cells('forward', f.forward.median,
                             base and base.forward.median,
                             row.published and row.published[0], 11.85),
                    'of itself dense': f.forward.median / dense[
                        row.contestant].forward.median
                    if row.contestant in dense else None,
                    **_rest(f, peaks, work),
                })
            table.notes += _notes(trial)
            sparse = trial.figures.get(_SPARSE.contestant)
            fastest = min((f.forward.median for name, f in dense.items()
                           if f.kind == 'dense'), default=None)
            if density < 1 and sparse and fastest and (
                    channels, *size, *kernel) == _P9:
                report.goals.append(Goal(
                    'P9', 'table 3, density 0.25, share of the fastest dense '
                    'depthwise', .25, sparse.forward.median / fastest,
                    at_least=False, unit=''))
        report.tables.append(table)
    return report


def _rest(f: Figures | None, peaks, work) -> dict:
    """Percents, memory and repeats, also of a row that nobody runs."""
    if f is None:
        return dict.fromkeys(('% GMAC/s', '% GB/s', 'forward MB', 'repeats'))
    return {**percents(peaks, f.forward.median, work),
            'forward MB': mega(f.forward_memory),
            'repeats': f'{f.forward.repeats}/{f.both.repeats}'}


def _notes(trial: Trial, *notes: str) -> list[str]:
    return [*notes, *trial.left_out]
