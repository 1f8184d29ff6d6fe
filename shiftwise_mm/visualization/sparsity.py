"""Pictures of which small kernels a sparse network keeps, and where."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

__all__ = ['Places', 'plot_places', 'plot_taps_kept']

_COLOURS = dict(h='tab:blue', v='tab:orange')
_NAMES = dict(h='horizontal', v='vertical')
_COLUMNS = 4


@dataclass(frozen=True)
class Places:
    """How many channels keep a tap at the places along a large kernel.

    Args:
        size (int): Pixels that a tap takes, ``N``.
        channels (dict): Centre of a place, in pixels from that of the large
            kernel, to the channels that have it.
        kept (dict): Centre to the channels that keep a tap there.
    """

    size: int
    channels: Mapping[int, int]
    kept: Mapping[int, int]


def plot_taps_kept(counts: Mapping[str, Sequence[int]]) -> Figure:
    """Histograms of the taps that channels keep.

    Args:
        counts (Mapping): Title of each panel to the numbers of channels that
            keep 0, 1, ..., ``k`` taps.

    Returns:
        Figure: Of matplotlib, attached to no window.
    """
    columns = min(_COLUMNS, len(counts))
    rows = -(-len(counts) // columns)
    figure = Figure(figsize=(.6 + 3.1 * columns, 2.9 * rows),
                    layout='constrained')
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (title, numbers) in zip(panels, counts.items(), strict=False):
        axes.bar(range(len(numbers)), numbers, color='tab:blue', width=.85)
        axes.set(title=title, xlabel='taps kept',
                 xlim=(-.7, len(numbers) - .3))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    for axes in panels[len(counts):]:
        axes.axis('off')
    for axes in panels[::columns]:
        axes.set_ylabel('channels')
    return figure


def plot_places(places: Mapping[str, Mapping[str, Places]]) -> Figure:
    """Where along the large kernel channels keep a tap.

    A row of panels for each stage, a column for each direction; grey are the
    channels that have a place there, coloured those that keep a tap.

    Args:
        places (Mapping): Name of each stage to its directions (``'h'``,
            ``'v'``) and their places.

    Returns:
        Figure: Of matplotlib, attached to no window.
    """
    directions = [d for d in _NAMES if any(d in by for by in places.values())]
    figure = Figure(figsize=(4.8 * len(directions), .8 + 1.7 * len(places)),
                    layout='constrained')
    # One scale: how far each stage reaches shows.
    panels = figure.subplots(len(places), len(directions), squeeze=False,
                             sharex=True, sharey='row')
    for row, (stage, by_direction) in zip(panels, places.items(),
                                          strict=True):
        row[0].set_ylabel(f'{stage}\nchannels')
        row[0].yaxis.set_major_locator(MaxNLocator(5, integer=True))
        for axes, direction in zip(row, directions, strict=True):
            found = by_direction[direction]
            for numbers, colour in ((found.channels, '0.88'),
                                    (found.kept, _COLOURS[direction])):
                axes.bar(list(numbers), list(numbers.values()),
                         width=.9 * found.size, color=colour)
    for axes, direction in zip(panels[0], directions, strict=True):
        axes.set_title(_NAMES[direction])
    for axes in panels[-1]:
        axes.set_xlabel('pixels from the centre')
    return figure
