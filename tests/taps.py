"""Lists of taps for the fused kernels, put together by hand."""
from collections import defaultdict

import torch
from shiftwise_mm.kernels.fused_launch import Taps


def lists_of(spec, kept, outputs):
    """The lists of the taps that are kept.

    By hand from the offsets of the definition: tap ``j`` of repetition ``r``
    reads the input from ``-p_r(c, j) - (N - 1)`` on.

    Args:
        spec: The convolution.
        kept: ``(C, k)``, whether each tap is there.
        outputs: Of ``'vih'``.
    """
    k, n = spec.num_taps, spec.small_kernel
    source, offsets, start = [], [], [0]
    used = defaultdict(list)
    for name in 'vih':
        for channel in range(spec.channels):
            at = defaultdict(list)
            for r in range(spec.num_reps):
                if name == 'i':
                    at[-(n // 2)].append(spec.identity_tap[r, channel].item())
                    continue
                table = spec.tap_offsets(name)[r, channel].tolist()
                for j, p in enumerate(table):
                    at[-p - (n - 1)].append(j)
            for o, taps in sorted(at.items(), reverse=True):
                taps = [j for j in taps if kept[channel, j]]
                if taps and name in outputs:
                    for j in taps:
                        used[channel * k + j].append(len(offsets))
                    source.append([channel * k + j for j in taps])
                    offsets.append(o)
            start.append(len(offsets))
    flipped = torch.cat([
        torch.arange(first, last).flip(0)
        for first, last in zip(start, start[1:], strict=False)
    ])
    offset = torch.tensor(offsets)
    uses = [used[tap] for tap in range(spec.channels * k)]
    return Taps.of(_filled(source), _filled(uses), offset, flipped,
                   1 - n - offset[flipped], torch.tensor(start))


def _filled(rows):
    """Rows of equal length, -1 at random places: it stands for none."""
    length = max(map(len, rows)) + 1
    generator = torch.Generator().manual_seed(1)
    return torch.stack([
        torch.tensor(row + [-1] * (length - len(row)))[torch.randperm(
            length, generator=generator)] for row in rows
    ])
