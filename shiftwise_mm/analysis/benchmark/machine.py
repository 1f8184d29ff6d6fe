"""What the machine can do at most, and what did the measuring."""
from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata

import torch

from shiftwise_mm.ops.autotune_file import device_name
from shiftwise_mm.ops.linear import product
from shiftwise_mm.stack import installed_versions

from .timing import Budget, measure

__all__ = ['Peaks', 'measure_peaks', 'provenance', 'read_device']


@dataclass(frozen=True)
class Peaks:
    """Best measured rates, in 1/s.

    Attributes:
        macs (float): Multiply-adds of a large float32 matrix product.
        bytes (float): Bytes read and written by a stream (the better of copy
            and triad).
    """

    macs: float
    bytes: float

    def percent(self, seconds: float, macs: float,
                num_bytes: float) -> tuple[float, float]:
        """Percent of both peaks that a piece of work reached."""
        return (100 * macs / seconds / self.macs,
                100 * num_bytes / seconds / self.bytes)


def measure_peaks(device: torch.device, *, size: int = 2048,
                  elements: int = 1 << 25, seconds: float = 2.) -> Peaks:
    """Measures the peaks with torch's own routines.

    * the product of two ``size x size``, ``size ** 3`` multiply-adds: the
      better of ``a @ b`` and of the library that our linear layers use.
    * copy ``a[i] = b[i]``: ``8 * elements`` bytes; triad
      ``a[i] = b[i] + s * c[i]``: ``12 * elements`` bytes.

    The first quartile of the times counts: a peak is what is possible.
    """
    a, b, out = (torch.rand(size, size, device=device) for _ in range(3))
    x, y, z = (torch.rand(elements, device=device) for _ in range(3))
    calls: dict[str, Callable] = {
        'mm': partial(torch.mm, a, b, out=out),
        'product': partial(product, a, b),
        'copy': partial(z.copy_, x),
        'triad': partial(torch.add, x, y, alpha=3., out=z),
    }
    times = measure(calls, device, Budget(seconds))
    return Peaks(size**3 / min(times['mm'].low, times['product'].low),
                 max(8 * elements / times['copy'].low,
                     12 * elements / times['triad'].low))


def read_device(name: str) -> torch.device:
    """The device called ``name``.

    Raises:
        ValueError: If there is no such device here, or its times cannot be
            measured.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f'device must be cpu or cuda, got {name!r}') \
            from error
    if device.type not in ('cpu', 'cuda'):
        raise ValueError(f'device must be cpu or cuda, got {name!r}')
    if device.type == 'cuda' and (device.index or 0) >= \
            torch.cuda.device_count():
        raise ValueError(f'there is no device {name!r} here')
    return device


def provenance(device: torch.device) -> dict[str, object]:
    """Versions, device and threads that figures belong to."""
    found: dict[str, object] = {}
    for name in ('shiftwise_mm', 'torch', 'taichi'):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return {
        **found,
        **installed_versions(),
        'python': platform.python_version(),
        'device': device_name(device),
        'cores': os.cpu_count(),
        'threads': torch.get_num_threads(),
        'wait_policy': os.environ.get('OMP_WAIT_POLICY', 'default'),
        'load': round(os.getloadavg()[0], 2)
        if hasattr(os, 'getloadavg') else None,
    }
