"""Peak memory of one call."""
from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

__all__ = ['peak_memory']

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # glibc's mallopt
_STATUS, _CLEAR = Path('/proc/self/status'), Path('/proc/self/clear_refs')


def peak_memory(call: Callable[[], object],
                device: torch.device) -> int | None:
    """Bytes that ``call`` needs at its peak above what is there before it.

    Outputs, gradients and temporaries are in it, inputs are not. ``call``
    should have run before: what a first run leaves for later ones (compiled
    code, caches) does not belong to it.

    * CUDA: the caching allocator's high-water mark.
    * CPU on Linux with glibc: the high-water mark of the resident memory,
      with unused memory given back first and every larger block mapped by
      itself. So it sees the scratch of oneDNN and Taichi too, which torch's
      own count of allocations does not. Holes that earlier calls left in the
      heap are used before, and then stay: a little is counted too much.

    Returns:
        int | None: None where the system offers no such figure.
    """
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != 'cpu' or not sys.platform.startswith('linux'):
        return None
    libc = ctypes.CDLL(None)
    if not hasattr(libc, 'mallopt') or not hasattr(libc, 'malloc_trim'):
        return None
    with _mapped_blocks(libc):
        libc.malloc_trim(0)
        try:
            _CLEAR.write_text('5')  # the mark falls to what is there now
        except OSError:
            return None
        before = _status('VmRSS')
        result = call()
        peak = _status('VmHWM') - before
    del result
    return max(peak, 0)


@contextmanager
def _mapped_blocks(libc) -> Iterator[None]:
    """Keeps the heap's holes out of the figure.

    Afterwards the thresholds are those that glibc itself arrives at in a
    process that has freed large blocks.
    """
    libc.mallopt(_MMAP_THRESHOLD, 1 << 16)
    libc.mallopt(_TRIM_THRESHOLD, 1 << 16)
    try:
        yield
    finally:
        libc.mallopt(_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_TRIM_THRESHOLD, 64 << 20)


def _status(key: str) -> int:
    """A figure of this process in bytes."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f'{key}:'):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f'{_STATUS} has no {key}')
