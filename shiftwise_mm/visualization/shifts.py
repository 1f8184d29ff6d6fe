"""Where each tap of a shift-wise convolution lands."""
from __future__ import annotations

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from shiftwise_mm.ops import ShiftSpec
from shiftwise_mm.ops.spec import check_int

__all__ = ['plot_shifts']


def plot_shifts(spec: ShiftSpec, channel: int = 0, rep: int = 0) -> Figure:
    """Draws the taps of one channel and the places they are shifted to.

    On the left the ``k`` small kernels; on the right the plane of the large
    kernel, in pixels around its centre: the horizontal strip along the middle
    row, the vertical one along the middle column, each small kernel at its
    offset in repetition ``rep``, and the tap of the identity output.

    Args:
        spec (ShiftSpec): The tables.
        channel (int): Channel to draw, in 0..channels-1.
        rep (int): Repetition to draw, in 0..num_reps-1.

    Returns:
        Figure: Of matplotlib, attached to no window.

    Raises:
        TypeError, ValueError: If ``channel`` or ``rep`` is out of its range.
    """
    for name, value, count in (('channel', channel, spec.channels),
                               ('rep', rep, spec.num_reps)):
        if check_int(name, value, 0) >= count:
            raise ValueError(f'{name} must be in 0..{count - 1}, got {value}')
    k, n = spec.num_taps, spec.small_kernel
    colours = [matplotlib.colormaps['turbo'](0.05 + 0.9 * j / max(k - 1, 1))
               for j in range(k)]
    figure = Figure(figsize=(9, 5.2), layout='constrained')
    taps, plane = figure.subplots(1, 2, width_ratios=(1, 2.6))

    columns = max(1, round((k / 2)**.5))
    for j in range(k):
        x, y = (j % columns) * (n + 2), (j // columns) * (n + 2)
        _kernel(taps, x, y, n, colours[j], j)
    rows = -(-k // columns)
    taps.set(xlim=(-1, columns * (n + 2) - 1), ylim=(rows * (n + 2) - 1, -1),
             title=f'k = {k} small kernels\n{n} x {n}, one channel')

    first = -(spec.large_kernel // 2)
    for direction, perm in (('h', spec.perm_h), ('v', spec.perm_v)):
        for position, tap in enumerate(perm[rep, channel].tolist()):
            along, across = first + position * n, -(n // 2)
            x, y = (along, across) if direction == 'h' else (across, along)
            _kernel(plane, x, y, n, colours[tap], tap)
    title = f'shifted and added: {spec.large_kernel} x {n} and {n} x ' \
            f'{spec.large_kernel}'
    if spec.identity_tap is not None:
        tap = spec.identity_tap[rep, channel].item()
        plane.add_patch(Rectangle((-n / 2, -n / 2), n, n, fill=False, lw=2.5))
        title += f',\nand tap {tap} at the centre'
    reach = spec.strip_length + first
    plane.set(xlim=(first - 1, reach), ylim=(reach, first - 1), title=title,
              xlabel='columns from the centre', ylabel='rows')
    for axes in (taps, plane):
        axes.set_aspect('equal')
    taps.axis('off')
    return figure


def _kernel(axes, x: float, y: float, size: int, colour, tap: int) -> None:
    """One small kernel with its number, its first pixel at ``(x, y)``."""
    axes.add_patch(
        Rectangle((x - .5, y - .5), size, size, facecolor=colour,
                  edgecolor='white', lw=.8))
    red, green, blue, _ = colour
    dark = .3 * red + .59 * green + .11 * blue < .5
    axes.text(x + (size - 1) / 2, y + (size - 1) / 2, str(tap), fontsize=5.5,
              ha='center', va='center', color='white' if dark else 'black')
