"""Lists of taps for the fused kernels, whole and with taps masked."""
from __future__ import annotations

import threading
from collections import OrderedDict

import torch
from torch import Tensor

from shiftwise_mm.kernels.fused_launch import Taps

from .spec import ShiftSpec

__all__ = ['all_taps', 'kept_taps', 'without_masked']

_KEPT = 256  # lists, of some 0.1 MB: those of a model and of its average

_lists: OrderedDict[tuple, Taps] = OrderedDict()
_lock = threading.Lock()


def all_taps(spec: ShiftSpec, outputs: str,
             device: torch.device) -> list[Tensor]:
    """The lists of all places of the outputs, as :class:`Taps` has them.

    Args:
        spec (ShiftSpec): Sizes and tables.
        outputs (str): Of ``'vih'``, in this order.
        device (torch.device): Where the lists are to be.
    """

    def make() -> list[Tensor]:
        c, k, n = spec.channels, spec.num_taps, spec.small_kernel
        channel = torch.arange(c, device='cpu').view(c, 1)
        source, used, offset, flipped, start = [], [], [], [], []
        first = 0
        for name in 'vih':
            if name not in outputs:
                start.append(torch.full((c, ), first, device='cpu'))
                continue
            if name == 'i':
                taps = spec.identity_tap.unsqueeze(-1)  # (R, C, places)
                at = torch.tensor([-(n // 2)], device='cpu')
                place = torch.where(
                    taps == torch.arange(k, device='cpu'), 0, -1)
            else:
                perm = spec.perm_h if name == 'h' else spec.perm_v
                taps = perm.flip(-1)
                at = 1 - n - spec.position_offsets().flip(0)
                place = taps.argsort(-1)  # of each tap: (R, C, k)
            count = len(at)
            base = first + channel * count
            source.append((taps + channel * k).permute(1, 2, 0).flatten(0, 1))
            used.append(torch.where(place < 0, -1, base + place))
            offset.append(at.repeat(c))
            number = base + torch.arange(count, device='cpu')
            flipped.append(number.flip(1).flatten())
            start.append(base.flatten())
            first += c * count
        start.append(torch.tensor([first], device='cpu'))
        offset, flipped = torch.cat(offset), torch.cat(flipped)
        taps = Taps.of(
            source=torch.cat(source),
            used=torch.cat(used).permute(1, 2, 0).flatten(0, 1),
            offset=offset, flipped=flipped,
            offset_flipped=1 - n - offset[flipped], start=torch.cat(start))
        return [t.to(device) for t in taps]

    return spec.cached(('taps', outputs, device), make)


def without_masked(taps: Taps, mask: Tensor) -> Taps:
    """The lists without the taps that are masked.

    A place that has none left is no entry any more.

    Args:
        taps (Taps): The lists, on the CPU.
        mask (Tensor): Which small kernels are kept, bool ``(C*k,)``.
    """
    source, used = taps.source.long(), taps.used.long()
    source = torch.where((source >= 0) & mask[source], source, -1)
    there = (source >= 0).any(1)
    number = there.cumsum(0) - 1
    ordered = there[taps.flipped.long()]
    used = torch.where((used >= 0) & mask[:, None] & there[used],
                       number[used], -1)
    before = torch.cat([number.new_zeros(1), number + 1])
    return Taps.of(source[there], used, taps.offset[there],
                   number[taps.flipped[ordered].long()],
                   taps.offset_flipped[ordered], before[taps.start.long()])


def kept_taps(taps: list[Tensor], mask: Tensor | None, key: str) -> Taps:
    """The lists without what is masked, made once for each mask.

    Kept by the values of the mask, the last that were asked for: layers of
    one mask share them, and a mask may change in any way.

    Args:
        taps (list[Tensor]): Those of :func:`all_taps`.
        mask (Tensor, optional): Bool ``(C*k,)``, on any device.
        key (str): Tells them from others.
    """
    if mask is None:
        return Taps(*taps)
    device = taps[0].device
    mask = mask.cpu()
    name = key, device, mask.numpy().tobytes()
    with _lock:
        if name in _lists:
            _lists.move_to_end(name)
            return _lists[name]
    # Else what a first call in inference mode leaves here could never be
    # trained through.
    with torch.inference_mode(False):
        kept = without_masked(Taps(*(t.cpu() for t in taps)), mask)
        kept = Taps(*(t.to(device) for t in kept))
    with _lock:
        _lists[name] = kept
        while len(_lists) > _KEPT:
            _lists.popitem(last=False)
    return kept
