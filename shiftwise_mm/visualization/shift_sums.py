"""What the repetitions of a shift-wise convolution add up to."""
from __future__ import annotations

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from shiftwise_mm.ops import ShiftSpec
from shiftwise_mm.ops.strips import strip_weights

from ._taps import (
    DIRECTIONS,
    bare,
    check_below,
    colours,
    draw_cell,
    places,
)

__all__ = ['kept_taps', 'plot_occupancy', 'plot_sum', 'small_kernels']


def kept_taps(spec: ShiftSpec, density: float, seed: int = 0) -> Tensor:
    """A random choice of the taps of each channel: bool (C, k).

    Of every channel ``round(density * k)`` taps are kept.

    Raises:
        ValueError: If ``density`` is not in [0, 1].
    """
    if not 0 <= density <= 1:
        raise ValueError(f'density must be in [0, 1], got {density}')
    generator = torch.Generator('cpu').manual_seed(seed)
    order = torch.rand(spec.channels, spec.num_taps, device='cpu',
                       generator=generator).argsort(-1).argsort(-1)
    return order < round(density * spec.num_taps)


def plot_occupancy(spec: ShiftSpec, channel: int = 0,
                   kept: Tensor | None = None) -> Figure:
    """Which taps each place of the large kernel adds up, by repetition.

    A row for each repetition, and one for the number of taps at each place.

    Args:
        spec (ShiftSpec): The tables.
        channel (int): Channel to draw, in 0..channels-1.
        kept (Tensor, optional): bool (C, k): the small kernels that a sparse
            network keeps; the others are drawn hollow. Defaults to all.

    Returns:
        Figure: Of matplotlib, attached to no window; its axes are labelled
        ``h`` and ``v``.

    Raises:
        TypeError, ValueError: If ``channel`` is out of its range, or
            ``kept`` of another shape.
    """
    check_below('channel', channel, spec.channels)
    k, n, reps = spec.num_taps, spec.small_kernel, spec.num_reps
    if kept is None:
        kept = torch.ones(spec.channels, k, dtype=torch.bool, device='cpu')
    if kept.shape != (spec.channels, k) or kept.dtype != torch.bool:
        raise ValueError(f'kept must be bool of shape ({spec.channels}, {k}),'
                         f' got {kept.dtype} of {tuple(kept.shape)}')
    own, shades = kept[channel].tolist(), colours(k)
    figure = Figure(figsize=(10, 1.5 + .62 * (reps + 1.5)),
                    layout='constrained')
    for axes, direction in zip(figure.subplots(2, 1), DIRECTIONS,
                               strict=True):
        axes.set_label(direction)
        bare(axes)
        counts: dict[int, int] = {}
        for rep in range(reps):
            for along, tap in places(spec, direction, rep, channel):
                draw_cell(axes, along, rep, (n, .9), shades[tap], tap,
                          kept=own[tap])
                counts[along] = counts.get(along, 0) + own[tap]
        for along, count in counts.items():
            grey = 1 - .75 * count / reps
            draw_cell(axes, along, reps + .3, (n, .9), (grey, ) * 3, count)
        taken = sum(count > 0 for count in counts.values())
        axes.set(xlim=(min(counts) - 1.5, max(counts) + n + .5),
                 ylim=(reps + 1.2, -.8))
        axes.set_yticks([*range(reps), reps + .3],
                        [*(f'repetition {r}' for r in range(reps)),
                         'taps added'])
        axes.set_title(
            f'{DIRECTIONS[direction]} output: {taken} of {k} places taken by '
            f'{sum(counts.values())} of {k * reps} taps', fontsize=10)
    axes.set_xlabel('pixels from the centre, along the shift', fontsize=8)
    figure.suptitle(
        f'{reps} repetition{"s" * (reps > 1)} of the same {k} small kernels'
        f'{"" if all(own) else f", {sum(own)} kept, the others hollow"}',
        fontsize=11)
    return figure


def small_kernels(spec: ShiftSpec, seed: int = 0) -> Tensor:
    """Random small kernels (C*k, 1, N, N), float32, the same each time."""
    generator = torch.Generator('cpu').manual_seed(seed)
    return torch.randn(spec.channels * spec.num_taps, 1, spec.small_kernel,
                       spec.small_kernel, generator=generator, device='cpu')


def plot_sum(spec: ShiftSpec, channel: int = 0,
             weight: Tensor | None = None) -> Figure:
    """Small kernels, shifted by each repetition, and the strips they make.

    Weights are drawn as pixels, red for positive, blue for negative ones.

    Args:
        spec (ShiftSpec): The tables.
        channel (int): Channel to draw, in 0..channels-1.
        weight (Tensor, optional): Small kernels (C*k, 1, N, N). Defaults to
            those of :func:`small_kernels`.

    Returns:
        Figure: Of matplotlib, attached to no window; its axes are labelled
        ``taps``, ``h0``, ``h1``, ..., ``h``, and likewise with ``v``.

    Raises:
        TypeError, ValueError: If ``channel`` is out of its range.
    """
    check_below('channel', channel, spec.channels)
    k, n, reps = spec.num_taps, spec.small_kernel, spec.num_reps
    weight = small_kernels(spec) if weight is None else weight.detach().cpu()
    taps = weight.view(spec.channels, k, n, n)[channel].float()
    strips = {d: strip_weights(weight.float(), spec, d)[channel, 0]
              for d in 'hv'}
    limit = max(float(t.abs().max()) for t in (taps, *strips.values()))
    figure = Figure(figsize=(max(6.2, .19 * spec.strip_length + 1.4),
                             2.2 + .75 * 2 * (reps + 1)),
                    layout='constrained')
    names = ['taps'] + [f'{d}{r}' for d in 'hv' for r in (*range(reps), '')]
    axes = figure.subplot_mosaic(
        [[name] for name in names],
        height_ratios=[1.4] + [1] * (len(names) - 1))
    for name, panel in axes.items():
        panel.set_label(name)
        bare(panel)
        panel.set(yticks=[])
    options = dict(cmap='RdBu_r', vmin=-limit, vmax=limit)
    gap = 1
    panel = axes['taps']
    for j in range(k):
        left = j * (n + gap)
        panel.imshow(taps[j].numpy(), **options, extent=(
            left - .5, left + n - .5, n - .5, -.5))
        panel.text(left + (n - 1) / 2, -.8, str(j), ha='center', va='bottom',
                   fontsize=7)
    panel.set(xlim=(-.7, k * (n + gap) - gap - .3), ylim=(n - .3, -.7),
              xticks=[])
    panel.set_title(f'1. {k} small kernels of one channel, {n} x {n}\n',
                    fontsize=10)
    first = -(spec.large_kernel // 2)
    for direction, strip in strips.items():
        for rep in range(reps):
            found = places(spec, direction, rep, channel)
            _draw_row(axes[f'{direction}{rep}'],
                      torch.cat([_along(taps[tap], direction)
                                 for _, tap in found], 1),
                      first, f'repetition {rep}', options)
            for along, tap in found:
                axes[f'{direction}{rep}'].text(
                    along + (n - 1) / 2, -.8, str(tap), ha='center',
                    va='bottom', fontsize=7)
            axes[f'{direction}{rep}'].set_xticks([])
        _draw_row(axes[direction], _along(strip, direction), first,
                  'sum', options)
    axes['h0'].set_title(
        f'2. shifted along the row; their sum is one {n} x '
        f'{spec.strip_length} kernel\n', fontsize=10)
    axes['v0'].set_title(
        f'3. shifted along the column (drawn lying down); their sum is '
        f'one {spec.strip_length} x {n} kernel\n', fontsize=10)
    axes['v'].set_xlabel('pixels from the centre', fontsize=8)
    return figure


def _along(kernel: Tensor, direction: str) -> Tensor:
    """A kernel with the direction of the shift to the right."""
    return kernel if direction == 'h' else kernel.t()


def _draw_row(axes, strip: Tensor, first: int, label: str,
              options: dict) -> None:
    n, length = strip.shape
    axes.imshow(strip.numpy(), **options, extent=(
        first - .5, first + length - .5, n - .5, -.5))
    axes.set_ylabel(label, rotation=0, ha='right', va='center', fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.set(xlim=(first - .7, first + length - .3), ylim=(n - .3, -.7))
