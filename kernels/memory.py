"""Memory of the CPU's kernels, and how wide their vectors are."""
from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

__all__ = ['TASKS', 'vector_lanes', 'lanes_within', 'aligned', 'scratch']

TASKS = 4  # a thread: evens out what other programs take


@cache
def vector_lanes() -> int:
    """Floats in a vector of this CPU: 16 with AVX-512, else 8."""
    capability = torch.backends.cpu.get_cpu_capability()
    return 16 if capability == 'AVX512' else 8


def lanes_within(channels: int) -> int:
    """Floats in a vector, fewer where so many channels fill no wide ones."""
    lanes = vector_lanes()
    return 8 if channels % lanes else lanes


def aligned(count: int, dtype: torch.dtype) -> Tensor:
    """A vector that starts at a multiple of 512 bytes."""
    store = torch.empty(count + 128, dtype=dtype, device='cpu')
    first = -store.data_ptr() // store.element_size() % 128
    return store[first:first + count]


_kept: dict[int, tuple[Tensor, Tensor]] = {}


def scratch(floats: int, lanes: int) -> tuple[Tensor, Tensor]:
    """One memory as vectors and as floats.

    Kept: fresh memory would cost as much as a small convolution.
    """
    views = _kept.get(lanes)
    if views is None or views[-1].numel() < floats:
        with torch.inference_mode(False):
            memory = aligned(-(-floats // 1024) * 1024, torch.float32)
            views = memory.view(-1, lanes), memory
        _kept[lanes] = views
    return views
