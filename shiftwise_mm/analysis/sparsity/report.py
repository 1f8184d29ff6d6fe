"""The report on a sparse network, in Markdown and pictures."""
from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure

from shiftwise_mm.analysis.benchmark.report import Table, write_whole
from shiftwise_mm.visualization import (
    Places,
    plot_places,
    plot_taps_kept,
    save_figure,
)

from .costs import Costs, multiply_adds, parameters
from .tap_sets import TapSet

__all__ = ['SparsityReport']

_HISTOGRAM, _PLACES, _TEXT = 'taps_kept.png', 'places.png', 'sparsity.md'
_COST_NOTES = (
    '* *SLaK*, *shift-wise* and their *ratio*: the equations of the seed '
    'paper, dense.',
    '* *by equation*: that of the kernels in the file, times the share of '
    'taps that any path keeps.',
    '* *counted*: the large kernels in the file, as if all were kept; *kept*: '
    'those kept; *saved*: 1 - kept / counted. Small kernels are counted with '
    'the padding of the published composition, which the equations leave '
    'out.',
    '* *strips*: the places of both directions and the identity output, as '
    'the deployed form computes; *strips kept*: those where a kept tap lies, '
    'all that a kernel has to compute that skips the others.',
)


@dataclass(frozen=True, eq=False)
class SparsityReport:
    """Which taps a network keeps, where they lie, and what that saves.

    Args:
        title (str): What is reported on.
        tap_sets (Sequence[TapSet]): Its small kernels, at least one.
        sizes (Mapping): Name of each stage to the side of its features in
            pixels, at an image of ``image_size``; empty if not known.
        image_size (int): In pixels.
        remarks (Sequence[str]): What else there is to say, a line each.
    """

    title: str
    tap_sets: Sequence[TapSet]
    sizes: Mapping[str, int]
    image_size: int = 224
    remarks: Sequence[str] = ()

    @property
    def stages(self) -> dict[str, list[TapSet]]:
        """The sets by stage, in the order of the network."""
        found: dict[str, list[TapSet]] = {}
        for tap_set in self.tap_sets:
            found.setdefault(tap_set.stage, []).append(tap_set)
        return found

    def shares(self) -> dict[str, dict[str, float]]:
        """Which share is kept, by stage and of ``'all'``.

        Returns:
            dict: Of each ``density``, of the taps of all paths; ``union``,
            of the taps that any path keeps; ``places h`` and ``places v``,
            of the places along the large kernel where a kept tap lies in any
            repetition, horizontally and vertically.
        """
        return {stage: dict(
            density=_density(sets), union=_share([s.union for s in sets]),
            **{f'places {direction}': _share(
                [s.placed(direction) for s in sets
                 if direction in s.directions]) for direction in 'hv'})
            for stage, sets in (*self.stages.items(),
                                ('all', list(self.tap_sets)))}

    def markdown(self, pictures: bool = False) -> str:
        """The report; with ``pictures`` it shows those of :meth:`write`."""
        parts = [f'# {self.title}', '', *self._notes(), '', '## Density', '',
                 self._densities().markdown()]
        parts += ['## Channels by number of taps kept', '']
        if pictures:
            parts += [f'![histograms]({_HISTOGRAM})', '']
        parts += [_counts_table(stage, sets).markdown()
                  for stage, sets in self.stages.items()]
        if pictures:
            parts += ['## Where in the large kernel the kept taps lie', '',
                      'Channels that keep a tap at a place (coloured) of '
                      'those that have one (grey).', '',
                      f'![places]({_PLACES})', '']
        parts += ['## What is saved', '', *_COST_NOTES, '', self._costs(
            'Parameters of the large kernels', '').markdown()]
        if self.sizes:
            parts.append(self._costs(
                'Multiply-adds of the large kernels, millions, one image of '
                f'{self.image_size}x{self.image_size}', 'M').markdown())
        return '\n'.join(parts).rstrip() + '\n'

    def pictures(self) -> dict[str, Figure]:
        """The figures, by the names of their files."""
        counts = {
            f'{stage}, density {_density(sets):.4f}':
            [int(n) for n in _histogram(sets)]
            for stage, sets in self.stages.items()
        }
        places = {stage: {direction: _places(sets, direction)
                          for direction in 'hv'}
                  for stage, sets in self.stages.items()}
        return {_HISTOGRAM: plot_taps_kept(counts),
                _PLACES: plot_places(places)}

    def write(self, folder: str | os.PathLike) -> Path:
        """Writes text and pictures; each file appears whole or not at all.

        Args:
            folder (str): Made if need be; earlier reports are overwritten.

        Returns:
            Path: The Markdown.

        Raises:
            OSError: If it cannot be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in self.pictures().items():
            save_figure(figure, folder / name)
        write_whole(folder / _TEXT, self.markdown(True))
        return folder / _TEXT

    def _notes(self) -> list[str]:
        masked = sum(s.masked for s in self.tap_sets)
        zeros = len(self.tap_sets) - masked
        notes = []
        if masked:
            notes.append(f'Kept are the taps of the masks in the file '
                         f'({masked} masks).')
        if zeros:
            notes.append(
                f'The file holds no masks of {zeros} sets of kernels: '
                'kept are the taps whose weights are not all zero.')
        if all(s.kept.all() for s in self.tap_sets):
            notes.append('The network is dense: every tap is kept, all '
                         'densities are 1.')
        if any(len(s.kept) > 1 for s in self.tap_sets):
            notes.append('Paths add up to one convolution: a tap counts as '
                         'kept by a channel, and is computed, where any path '
                         'keeps it (*union*); *density* is over all paths.')
        if _has_single_weights(self.tap_sets):
            notes.append('Single weights are masked in the taps that are '
                         'kept: it saves parameters, and no products.')
        return [f'* {note}' for note in (*self.remarks, *notes)]

    def _densities(self) -> Table:
        rows, stages = [], {**self.stages, 'all': self.tap_sets}
        for stage, shares in self.shares().items():
            sets = stages[stage]
            texts = {name: f'{share:.4f}' for name, share in shares.items()}
            row = dict(
                stage=stage, layers=len({s.layer for s in sets}),
                channels=_several(s.channels for s in sets),
                taps=_several(s.taps for s in sets),
                kernel=_several(f'{s.large_kernel} of {s.small_kernel}'
                                for s in sets),
                paths=_several(len(s.kept) for s in sets),
                density=texts.pop('density'), union=texts.pop('union'))
            if _has_single_weights(self.tap_sets):
                kept = sum(s.kept_weights for s in sets)
                row['weights'] = f'{kept / sum(s.weights for s in sets):.4f}'
            rows.append({**row, **texts})
        return Table('By stage', rows, [
            '*places h* and *v*: share of the places along the large kernel, '
            'horizontal and vertical, where a kept tap lies in any '
            'repetition.'
        ])

    def _costs(self, title: str, unit: str) -> Table:
        costs = {}
        for stage, sets in self.stages.items():
            side = self.sizes.get(stage)
            costs[stage] = multiply_adds(sets, (side, side)) if unit else \
                parameters(sets)
        costs['all'] = sum(costs.values(), Costs())
        return Table(title, [_cost_row(stage, cost, unit)
                             for stage, cost in costs.items()])


def _cost_row(stage: str, costs: Costs, unit: str) -> dict:
    scale, digits = (1e6, 1) if unit else (1, 0)

    def text(value: float) -> str:
        return f'{value / scale:.{digits}f}'

    row = {'stage': stage, 'SLaK': text(costs.slak),
           'shift-wise': text(costs.shiftwise),
           'ratio': f'{costs.slak / costs.shiftwise:.2f}',
           'by equation': text(costs.predicted),
           'counted': text(costs.dense), 'kept': text(costs.kept),
           'saved': f'{costs.saved:.1%}'}
    if unit:
        row['strips'] = text(costs.strips)
        row['strips kept'] = text(costs.kept_strips)
    return row


def _counts_table(stage: str, sets: list[TapSet]) -> Table:
    length = max(s.taps for s in sets) + 1

    def row(label: str, part: list[TapSet]) -> dict:
        numbers = _histogram(part, length).tolist()
        return dict(block=label, **dict(zip(
            map(str, range(length)), numbers, strict=True)),
            density=f'{_density(part):.4f}')

    return Table(stage, [*(row(s.label, [s]) for s in sets),
                         row('all', sets)])


def _histogram(sets: list[TapSet], length: int = 0) -> torch.Tensor:
    """How many channels keep 0, 1, ... taps."""
    return torch.cat([s.union.sum(1) for s in sets]).bincount(
        minlength=length or max(s.taps for s in sets) + 1)


def _places(sets: list[TapSet], direction: str) -> Places:
    channels, kept = Counter(), Counter()
    for tap_set in sets:
        if direction not in tap_set.directions:
            continue
        found = tap_set.placed(direction).sum(0).tolist()
        for centre, number in zip(tap_set.centres(), found, strict=True):
            channels[centre] += tap_set.channels
            kept[centre] += number
    return Places(max(s.small_kernel for s in sets), channels, kept)


def _density(sets: Sequence[TapSet]) -> float:
    return _share([s.kept for s in sets])


def _share(flags: list[torch.Tensor]) -> float:
    return sum(int(f.sum()) for f in flags) / sum(f.numel() for f in flags)


def _has_single_weights(sets: Sequence[TapSet]) -> bool:
    return any(s.kept_weights < int((s.union * s.tap_sizes()).sum())
               for s in sets)


def _several(values) -> str:
    """The values that occur, each once."""
    return ', '.join(map(str, dict.fromkeys(values)))
