"""What the pictures of the operator share."""
from __future__ import annotations

import matplotlib
from matplotlib.patches import Rectangle

from shiftwise_mm.ops import ShiftSpec
from shiftwise_mm.ops.spec import check_int

DIRECTIONS = dict(h='horizontal', v='vertical')


def check_below(name: str, value: int, count: int) -> int:
    """``value`` if it is one of ``count``.

    Raises:
        TypeError, ValueError: If it is not.
    """
    if check_int(name, value, 0) >= count:
        raise ValueError(f'{name} must be in 0..{count - 1}, got {value}')
    return value


def colours(count: int) -> list[tuple]:
    """A colour for each tap."""
    return [matplotlib.colormaps['turbo'](.08 + .84 * j / max(count - 1, 1))
            for j in range(count)]


def places(spec: ShiftSpec, direction: str, rep: int,
           channel: int) -> list[tuple[int, int]]:
    """First pixel of each place from the centre, and the tap there."""
    perm = spec.perm_h if direction == 'h' else spec.perm_v
    first = -(spec.large_kernel // 2)
    return [(first + i * spec.small_kernel, tap)
            for i, tap in enumerate(perm[rep, channel].tolist())]


def text_on(colour) -> str:
    """Black or white, whichever can be read on a colour."""
    red, green, blue, *_ = colour
    return 'white' if .3 * red + .59 * green + .11 * blue < .5 else 'black'


def draw_cell(axes, x: float, y: float, size: tuple[float, float], colour,
              text, *, kept: bool = True, fontsize: float = 7) -> None:
    """A box with its first pixel at ``(x, y)``; hollow if it is not kept."""
    axes.add_patch(Rectangle(
        (x - .5, y - .5), *size, facecolor=colour if kept else 'none',
        edgecolor='white' if kept else '.75', lw=.8,
        ls='-' if kept else ':'))
    axes.text(x + (size[0] - 1) / 2, y + (size[1] - 1) / 2, str(text),
              fontsize=fontsize, ha='center', va='center',
              color=text_on(colour) if kept else '.65')


def bare(axes) -> None:
    """No frame: what is drawn has its own."""
    axes.spines[:].set_visible(False)
    axes.tick_params(labelsize=8, length=3, color='.6')
