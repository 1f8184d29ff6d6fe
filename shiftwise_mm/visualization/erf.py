"""Effective receptive fields side by side."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

__all__ = ['plot_fields']

_COLUMNS = 4
_CELLS = 120  # along the side of a panel
_LINES = ('-', '--', '-.', ':')


def plot_fields(fields: Mapping[str, np.ndarray],
                squares: Mapping[str, Mapping[float, tuple[int, float]]],
                note: str = '') -> Figure:
    """Heat maps with the squares that hold a share of the contributions.

    Args:
        fields (Mapping): Name of each network to its scores (H, W) in
            [0, 1], as :func:`~shiftwise_mm.analysis.erf.log_scores` gives
            them.
        squares (Mapping): Name to the side in pixels and the area ratio by
            threshold, in the same order for all.
        note (str): A line below.

    Returns:
        Figure: Of matplotlib, attached to no window.
    """
    columns = min(_COLUMNS, len(fields))
    rows = -(-len(fields) // columns)
    figure = Figure(figsize=(1.1 + 3.1 * columns, .5 + 3.35 * rows),
                    layout='constrained')
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (name, scores) in zip(panels, fields.items(), strict=False):
        image = _panel(axes, name, scores, squares[name])
    for axes in panels[len(fields):]:
        axes.axis('off')
    bar = figure.colorbar(image, ax=panels, shrink=.7, aspect=30)
    bar.set_label('contribution, log10(s + 1) / max')
    _legend(figure, next(iter(squares.values())))
    if note:
        figure.supxlabel(note, fontsize=8)
    return figure


def _cells(scores: np.ndarray) -> np.ndarray:
    """Means over small squares, so that a panel has ``_CELLS`` at most.

    Single pixels would not be seen, and make large files.
    """
    step = -(-max(scores.shape) // _CELLS)
    counts = np.ones(scores.shape)
    for axis, length in enumerate(scores.shape):
        starts = np.arange(0, length, step)
        scores, counts = (np.add.reduceat(values, starts, axis)
                          for values in (scores, counts))
    return scores / counts


def percent(share: float) -> str:
    """A share in percent, small ones with more digits."""
    return f'{share:.1%}' if share >= .01 else f'{share:.3%}'


def _panel(axes, name: str, scores: np.ndarray,
           squares: Mapping[float, tuple[int, float]]):
    height, width = scores.shape
    # The root brings out what is weak, of which there is most.
    image = axes.imshow(
        _cells(scores), cmap='magma', norm=PowerNorm(.5, 0, 1),
        interpolation='nearest', extent=(-.5, width - .5, height - .5, -.5))
    for line, (side, _) in zip(_LINES * len(squares), squares.values(),
                               strict=False):
        low = max(width // 2 - side // 2, 0), max(height // 2 - side // 2, 0)
        axes.add_patch(Rectangle(
            (low[0] - .5, low[1] - .5), min(side, width), min(side, height),
            fill=False, edgecolor='white', lw=.9, ls=line, alpha=.9))
    figures = '  '.join(f'{threshold:.0%}: {percent(ratio)}'
                        for threshold, (_, ratio) in squares.items())
    axes.set_title(f'{name}\n', fontsize=11)
    axes.text(.5, 1.015, figures, fontsize=7.5, ha='center', va='bottom',
              transform=axes.transAxes)
    axes.set(xticks=(0, width // 2, width - 1),
             yticks=(0, height // 2, height - 1))
    axes.tick_params(labelsize=7)
    return image


def _legend(figure: Figure, thresholds: Sequence[float]) -> None:
    lines = [Rectangle((0, 0), 1, 1, fill=False, edgecolor='black', ls=line)
             for line, _ in zip(_LINES * len(thresholds), thresholds,
                                strict=False)]
    figure.legend(lines, [f'{t:.0%} of the sum' for t in thresholds],
                  loc='outside upper center', ncols=len(lines), fontsize=8,
                  frameon=False)
