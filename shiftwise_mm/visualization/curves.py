"""Curves of trainings, several runs in each panel."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from shiftwise_mm.ops.spec import check_int

__all__ = ['moving_mean', 'plot_curves']

_COLUMNS = 3
_FEW = 40  # points of a curve up to which each is marked, none averaged

Points = Sequence[tuple[int, float]]


def moving_mean(values: Sequence[float], window: int) -> np.ndarray:
    """Mean of up to ``window`` values, each in the middle of its own: float64.

    ``(window - 1) // 2`` lie on either side, towards the ends as many as both
    sides have: the mean of a straight line is that line.
    """
    values = np.asarray(values, np.float64)
    sums = np.concatenate([[0.], values.cumsum()])
    places = np.arange(len(values))
    reach = np.minimum((window - 1) // 2,
                       np.minimum(places, places[::-1]))
    starts, ends = places - reach, places + reach + 1
    return (sums[ends] - sums[starts]) / (ends - starts)


def plot_curves(curves: Mapping[str, Mapping[str, Points]],
                smooth: int = 1) -> Figure:
    """A panel for each scalar, a colour for each run.

    Args:
        curves (Mapping): Name of each scalar to the points,
            ``(iteration, value)``, of each run by its label; a run may lack a
            scalar.
        smooth (int): Points of the moving mean by which scalars are drawn,
            over the pale values themselves, of all runs as soon as one has
            logged it more than 40 times. Defaults to 1: none.

    Returns:
        Figure: Of matplotlib, attached to no window.

    Raises:
        TypeError, ValueError: If ``smooth`` is not a positive integer.
    """
    check_int('smooth', smooth, 1)
    runs = list(dict.fromkeys(run for by_run in curves.values()
                              for run in by_run))
    columns = min(_COLUMNS, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(.4 + 3.5 * columns, .5 + 2.5 * rows),
                    layout='constrained')
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    last = max((x for by_run in curves.values() for points in by_run.values()
                for x, _ in points), default=1)
    lines = {}
    for axes, (key, by_run) in zip(panels, curves.items(), strict=False):
        # One mean and one as logged would not compare.
        most = max(map(len, by_run.values()), default=0)
        window = smooth if most > _FEW else 1
        for run, points in by_run.items():
            if points:
                lines[run] = _draw(axes, points, f'C{runs.index(run) % 10}',
                                   '-' if runs.index(run) < 10 else '--',
                                   window)
        axes.set_title(key, fontsize=10)
        axes.set_xlim(0, 1.03 * last)  # one scale
        axes.grid(alpha=.25)
        axes.spines[['top', 'right']].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if key.rpartition('/')[2] == 'lr':
            axes.ticklabel_format(axis='y', scilimits=(-2, 3))
    for axes in panels[len(curves):]:
        axes.axis('off')
    for axes in panels[max(len(curves) - columns, 0):len(curves)]:
        axes.set_xlabel('iteration', fontsize=9)
    figure.legend(lines.values(), lines, loc='outside upper center',
                  ncols=min(3, len(lines)), fontsize=9, frameon=False)
    return figure


def _draw(axes, points: Points, colour: str, style: str, window: int):
    x, y = map(np.asarray, zip(*points, strict=True))
    if window > 1:
        axes.plot(x, y, color=colour, lw=.6, alpha=.3)
        y = moving_mean(y, window)
    line, = axes.plot(x, y, style, color=colour, lw=1.4,
                      marker='o' if len(points) <= _FEW else None,
                      markersize=3)
    return line
