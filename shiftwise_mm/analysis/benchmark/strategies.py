r"""The seed paper's five ways to shift and add, in plain torch.

Each maker returns a function from ``y`` to the outputs, see
:func:`shiftwise_mm.ops.shift_add`; whatever does not depend on ``y`` is made
beforehand. Only floating inputs count for autograd.

``_gathers`` puts the taps at one position of one repetition together, for the
strategies that shift all channels by the same offset.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from shiftwise_mm.ops import ShiftSpec, shift_add
from shiftwise_mm.stack import import_optional

__all__ = ['STRATEGIES', 'Shift', 'plain_slicing']

Shift = Callable[[Tensor], tuple[Tensor, ...]]


def _identity(spec: ShiftSpec, device: torch.device) -> Shift:
    """The identity output alone, for the strategies that only shift."""
    first = torch.arange(spec.channels) * spec.num_taps
    picks = [(first + tap).to(device) for tap in spec.identity_tap]
    e = spec.small_kernel // 2

    def output(y: Tensor) -> Tensor:
        inner = y[..., e:y.shape[2] - e, e:y.shape[3] - e]
        return sum(inner.index_select(1, pick) for pick in picks)

    return output


def _centre(y: Tensor, spec: ShiftSpec, name: str) -> Tensor:
    """``y`` without its borders across the shift."""
    e, dim = spec.small_kernel // 2, 2 if name == 'h' else 3
    return y.narrow(dim, e, y.shape[dim] - 2 * e)


def _by_direction(spec: ShiftSpec, outputs: Sequence[str],
                  device: torch.device,
                  make: Callable[[str], Callable[[Tensor], Tensor]]) -> Shift:
    """A strategy from what computes ``'h'`` or ``'v'`` of the centre."""
    parts = [_identity(spec, device) if name == 'i' else
             (lambda y, name=name, one=make(name):
              one(_centre(y, spec, name))) for name in outputs]
    return lambda y: tuple(part(y) for part in parts)


def _gathers(spec: ShiftSpec, name: str,
             device: torch.device) -> list[tuple[Tensor, int]]:
    """Taps of every channel and the offset, for each ``r`` and ``i``."""
    first = torch.arange(spec.channels) * spec.num_taps
    perm = spec.perm_h if name == 'h' else spec.perm_v
    return [((first + perm[r, :, i]).to(device), offset)
            for r in range(spec.num_reps)
            for i, offset in enumerate(spec.position_offsets().tolist())]


def slicing(spec: ShiftSpec, outputs: Sequence[str], size: tuple[int, int],
            device: torch.device) -> Shift:
    """Slices added into place: the definition in ``ops.reference``."""
    return partial(shift_add, spec=spec, outputs=tuple(outputs),
                   backend='reference')


def plain_slicing(spec: ShiftSpec, outputs: Sequence[str],
                  size: tuple[int, int], device: torch.device) -> Shift:
    """Slicing of a padded ``y``, as a compiler likes it: no writes."""

    def make(name: str):
        dim = 3 if name == 'h' else 2
        length = size[1] if name == 'h' else size[0]
        gathers = _gathers(spec, name, device)
        before = max(0, *(offset for _, offset in gathers))
        last = max(length - offset for _, offset in gathers)

        def output(y: Tensor) -> Tensor:
            after = max(0, last - y.shape[dim])
            pad = [before, after] if name == 'h' else [0, 0, before, after]
            y = F.pad(y, pad)
            return sum(
                y.index_select(1, taps).narrow(dim, before - offset, length)
                for taps, offset in gathers)

        return output

    return _by_direction(spec, outputs, device, make)


def rolling(spec: ShiftSpec, outputs: Sequence[str], size: tuple[int, int],
            device: torch.device) -> Shift:
    """``torch.roll``, then a mask on what came in from the other end."""

    def make(name: str):
        dim = 3 if name == 'h' else 2
        length = size[1] if name == 'h' else size[0]
        whole = length + spec.small_kernel - 1
        places = torch.arange(length)
        moves = []
        for taps, offset in _gathers(spec, name, device):
            source = places - offset
            mask = ((source >= 0) & (source < whole)).float().to(device)
            moves.append((taps, offset,
                          mask if name == 'h' else mask.view(-1, 1)))

        def output(y: Tensor) -> Tensor:
            return sum(
                y.index_select(1, taps).roll(offset, dim).narrow(
                    dim, 0, length) * mask for taps, offset, mask in moves)

        return output

    return _by_direction(spec, outputs, device, make)


def deformable(spec: ShiftSpec, outputs: Sequence[str], size: tuple[int, int],
               device: torch.device) -> Shift:
    """mmcv's ``deform_conv2d``: 1x1 kernels of ones, constant offsets."""
    deform_conv2d = import_optional(
        'mmcv.ops', 'deformable convolution').deform_conv2d
    channels, k = spec.channels, spec.num_taps
    ones = torch.ones(channels, k, 1, 1, device=device)

    def make(name: str):
        shifts = []
        for table in spec.tap_offsets(name).flatten(1):  # (C*k,) each
            offset = torch.zeros(1, channels * k, 2)  # of rows, of columns
            offset[0, :, 1 if name == 'h' else 0] = -table.float()
            shifts.append(offset.view(1, -1, 1, 1).to(device))

        def output(y: Tensor) -> Tensor:
            y = y.contiguous()
            places = (len(y), -1, *y.shape[2:])
            out = sum(
                deform_conv2d(y, shift.expand(*places).contiguous(), ones, 1,
                              0, 1, channels, channels * k, False, len(y))
                for shift in shifts)
            return out[..., :size[0], :size[1]]

        return output

    return _by_direction(spec, outputs, device, make)


def deltas(spec: ShiftSpec, outputs: Sequence[str], size: tuple[int, int],
           device: torch.device) -> Shift:
    """A grouped convolution whose kernels hold a one at the offset."""
    offsets = spec.position_offsets()
    low, high = int(offsets.min()), int(offsets.max())
    channels, k = spec.channels, spec.num_taps

    def make(name: str):
        kernels = torch.zeros(channels, k, high - low + 1)
        for table in spec.tap_offsets(name):  # out[w] reads y[w - offset]
            kernels.scatter_add_(2, (high - table).unsqueeze(-1),
                                 torch.ones(channels, k, 1))
        kernels = kernels.unsqueeze(2 if name == 'h' else 3).to(device)
        before, after = max(high, 0), max(-low, 0)
        pad = (before, after) if name == 'h' else (0, 0, before, after)
        dim = 3 if name == 'h' else 2

        def output(y: Tensor) -> Tensor:
            out = F.conv2d(F.pad(y, pad), kernels, groups=channels)
            return out.narrow(dim, before - high, size[dim - 2])

        return output

    return _by_direction(spec, outputs, device, make)


def grid_sampling(spec: ShiftSpec, outputs: Sequence[str],
                  size: tuple[int, int], device: torch.device) -> Shift:
    """``grid_sample`` (nearest): every tap with a grid of its own."""
    channels, k = spec.channels, spec.num_taps

    def make(name: str):
        extra = spec.small_kernel - 1
        whole = ((size[0], size[1] + extra) if name == 'h' else
                 (size[0] + extra, size[1]))
        rows, columns = (
            (2. * torch.arange(n).double() + 1) / s - 1
            for n, s in zip(size, whole, strict=True))
        grids = []
        for table in spec.tap_offsets(name).flatten(1):
            grid = torch.zeros(channels * k, *size, 2, dtype=torch.double)
            grid[..., 0], grid[..., 1] = columns, rows.view(-1, 1)
            axis = 0 if name == 'h' else 1
            grid[..., axis] -= (2. * table.double() /
                                whole[1 - axis]).view(-1, 1, 1)
            grids.append(grid.float().to(device))

        def output(y: Tensor) -> Tensor:
            y = y.transpose(0, 1)  # a grid serves all images
            out = sum(
                F.grid_sample(y, grid, mode='nearest', padding_mode='zeros',
                              align_corners=False) for grid in grids)
            return out.unflatten(0, (channels, k)).sum(1).transpose(0, 1)

        return output

    return _by_direction(spec, outputs, device, make)


# Strategies by the name of their row.
STRATEGIES: dict[str, Callable] = {
    'slicing': slicing,
    'torch.roll': rolling,
    'deformable convolution (mmcv)': deformable,
    'shifted deltas': deltas,
    'grid_sample': grid_sampling,
}
