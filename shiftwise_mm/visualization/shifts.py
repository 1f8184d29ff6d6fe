"""Where each tap of a shift-wise convolution lands."""
from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from shiftwise_mm.ops import ShiftSpec

from ._taps import bare, check_below, colours, draw_cell, places

__all__ = ['plot_shifts']

_COLUMNS = 32  # channels in a row


def plot_shifts(spec: ShiftSpec, channel: int = 0, rep: int = 0,
                split: tuple[Sequence[int], Sequence[int]] | None = None
                ) -> Figure:
    """Draws the taps of one channel and the places they are shifted to.

    On the left the ``k`` small kernels; then where repetition ``rep`` puts
    each of them in the horizontal and in the vertical output, in pixels from
    the centre of the large kernel; and what comes of their sum with the tap
    of the identity output: a cross. With ``split`` also which channels are
    convolved and which pass unchanged.

    Args:
        spec (ShiftSpec): The tables.
        channel (int): Channel to draw, in 0..channels-1; with ``split`` that
            of the input.
        rep (int): Repetition to draw, in 0..num_reps-1.
        split (tuple, optional): Channels of the input that are convolved,
            and the ghosts, as
            :func:`~shiftwise_mm.models.layers.ghost.split_channels` gives
            them.

    Returns:
        Figure: Of matplotlib, attached to no window. Its axes are labelled
        ``taps``, ``h``, ``v``, ``sum`` and, with ``split``, ``channels``.

    Raises:
        TypeError, ValueError: If ``channel`` or ``rep`` is out of its range,
            or ``channel`` is a ghost.
    """
    check_below('rep', rep, spec.num_reps)
    drawn = channel
    if split is not None:
        convolved, ghosts = ([int(c) for c in part] for part in split)
        check_below('channel', channel, len(convolved) + len(ghosts))
        if channel in ghosts:
            raise ValueError(f'channel {channel} is a ghost, it passes '
                             f'unchanged; convolved are {convolved}')
        channel = convolved.index(channel)
    check_below('channel', channel, spec.channels)
    figure = Figure(figsize=(9.6, 6.1 if split is None else 6.9),
                    layout='constrained')
    rows = [['taps', 'h', 'v'], ['taps', 'sum', 'v']]
    heights = [1, 4.2]
    if split is not None:
        rows, heights = [*rows, ['channels'] * 3], [*heights, .9]
    axes = figure.subplot_mosaic(rows, width_ratios=(1.5, 3.3, .75),
                                 height_ratios=heights)
    for name, panel in axes.items():
        panel.set_label(name)
        bare(panel)
    _draw_taps(axes['taps'], spec)
    for direction in 'hv':
        _draw_strip(axes[direction], spec, direction, rep, channel)
    _draw_sum(axes['sum'], spec, rep, channel)
    if split is not None:
        _draw_channels(axes['channels'], convolved, ghosts, drawn)
    figure.suptitle(
        f'Shift-wise convolution: a {spec.large_kernel} x '
        f'{spec.small_kernel} and a {spec.small_kernel} x '
        f'{spec.large_kernel} kernel out of {spec.num_taps} small ones\n'
        f'channel {drawn}, repetition {rep} of {spec.num_reps}', fontsize=11)
    return figure


def _draw_taps(axes, spec: ShiftSpec) -> None:
    k, n = spec.num_taps, spec.small_kernel
    columns = max(1, round((k / 2)**.5))
    step = n + 1.6
    for j, colour in enumerate(colours(k)):
        draw_cell(axes, j % columns * step, j // columns * step, (n, n),
                  colour, j, fontsize=9)
    axes.set(xlim=(-1, columns * step - 1), xticks=[], yticks=[],
             ylim=(-(-k // columns) * step - 1, -1))
    axes.set_title(f'1. convolve with {k} taps,\n{n} x {n} each', fontsize=10)
    axes.set_aspect('equal')


def _draw_strip(axes, spec: ShiftSpec, direction: str, rep: int,
                channel: int) -> None:
    n, shades = spec.small_kernel, colours(spec.num_taps)
    across = -(n // 2)
    small = 5.5 if spec.num_taps > 12 else 8
    for along, tap in places(spec, direction, rep, channel):
        x, y = (along, across) if direction == 'h' else (across, along)
        draw_cell(axes, x, y, (n, n), shades[tap], tap, fontsize=small)
    ends = _ends(spec)
    if direction == 'h':
        axes.set(xlim=ends, ylim=(n - .2, -n + .2), yticks=[])
        axes.set_title('2. shift each along the row and add: horizontal '
                       'output', fontsize=10)
        axes.set_xlabel('columns from the centre', fontsize=8)
    else:
        axes.set(ylim=ends[::-1], xlim=(-n + .2, n - .2), xticks=[])
        axes.set_title('3. along\nthe column', fontsize=10)
        axes.set_ylabel('rows from the centre', fontsize=8)
    for axis in axes.xaxis, axes.yaxis:
        if len(axis.get_ticklocs()):
            axis.set_major_locator(MaxNLocator(7, integer=True))
    axes.set_aspect('equal')


def _ends(spec: ShiftSpec) -> tuple[float, float]:
    first = -(spec.large_kernel // 2)
    return first - 1.5, first + spec.strip_length + .5


def _draw_sum(axes, spec: ShiftSpec, rep: int, channel: int) -> None:
    n, length = spec.small_kernel, spec.strip_length
    first, across = -(spec.large_kernel // 2) - .5, -(n / 2)
    boxes = (((first, across), length, n, 'tab:blue', 'horizontal\noutput'),
             ((across, first), n, length, 'tab:orange', 'vertical\noutput'))
    for corner, width, height, colour, label in boxes:
        axes.add_patch(Rectangle(corner, width, height, facecolor=colour,
                                 alpha=.45, label=label))
    title = '4. their sum: what one output pixel sees'
    if spec.identity_tap is not None:
        tap = int(spec.identity_tap[rep, channel])
        axes.add_patch(Rectangle(
            (-n / 2, -n / 2), n, n, fill=False, lw=2.2,
            label=f'identity output:\ntap {tap}, not shifted'))
    ends = _ends(spec)
    axes.set(xlim=ends, ylim=ends[::-1])
    axes.set_title(title, fontsize=10)
    axes.set_aspect('equal')
    axes.legend(loc='center left', bbox_to_anchor=(1, .5), fontsize=8,
                frameon=False)
    axes.set_xlabel('columns from the centre', fontsize=8)
    axes.set_ylabel('rows', fontsize=8)


def _draw_channels(axes, convolved: list[int], ghosts: list[int],
                   drawn: int) -> None:
    count = len(convolved) + len(ghosts)
    columns = min(_COLUMNS, count)
    shown = min(count, 3 * columns)
    for channel in range(shown):
        ghost = channel in ghosts
        draw_cell(axes, channel % columns, channel // columns, (1, 1),
                  (.15, .35, .65) if not ghost else (.88, .88, .88), channel,
                  fontsize=6)
    if drawn < shown:
        axes.add_patch(Rectangle(
            (drawn % columns - .5, drawn // columns - .5), 1, 1, fill=False,
            edgecolor='tab:red', lw=2))
    axes.set(xlim=(-.6, columns - .4), ylim=(-(-shown // columns) - .4, -.6),
             xticks=[], yticks=[])
    more = f' (the first {shown} of {count})' if shown < count else ''
    axes.set_title(f'channels{more}: {len(convolved)} are convolved (blue), '
                   f'{len(ghosts)} pass unchanged and go to the end (grey)',
                   fontsize=9)
    axes.set_aspect('equal')
