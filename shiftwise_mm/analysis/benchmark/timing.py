"""Time of several contestants, measured side by side."""
from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ['Budget', 'Timing', 'measure']


@dataclass(frozen=True)
class Budget:
    """How long to measure.

    Attributes:
        seconds (float): For each contestant; as many repeats as fit into
            it, at least 3 (1 if a call takes ten times as long) and at most
            100.
        repeats (int, optional): So many repeats of each instead.
    """

    seconds: float = 1.
    repeats: int | None = None

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ValueError('seconds must be positive, got '
                             f'{self.seconds}')
        if self.repeats is not None and self.repeats < 1:
            raise ValueError('repeats must be at least 1, got '
                             f'{self.repeats}')

    def is_slow(self, once: float) -> bool:
        """Whether a call that took ``once`` seconds runs but once."""
        return once > 10 * self.seconds

    def count(self, once: float) -> int:
        """Repeats of a call that took ``once`` seconds."""
        if self.repeats is not None:
            return self.repeats
        fewest = 1 if self.is_slow(once) else 3
        return min(max(int(self.seconds / max(once, 1e-9)), fewest), 100)


@dataclass(frozen=True)
class Timing:
    """Seconds of one call.

    Attributes:
        median (float): The figure to report.
        low, high (float): First and third quartile.
        repeats (int): Calls measured.
    """

    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, times: list[float]) -> Timing:
        """The quartiles of measured times."""
        low, median, high = (
            statistics.quantiles(times, n=4, method='inclusive')
            if len(times) > 1 else times * 3)
        return cls(median, low, high, len(times))


def _once(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, up to its end on the device."""
    if device.type == 'cuda':
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in '12')
        torch.cuda.synchronize(device)
        start.record()
        call()
        stop.record()
        torch.cuda.synchronize(device)
        return start.elapsed_time(stop) / 1e3
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(calls: dict[str, Callable[[], object]], device: torch.device,
            budget: Budget, seed: int = 0) -> dict[str, Timing]:
    """Times all calls in one process, their repeats mixed at random.

    So whatever disturbs the machine for a while disturbs all of them, and no
    call always finds the caches as the same other call has left them. Each
    runs beforehand (twice, if it is not slow: the first may compile), to be
    warm and to tell how many repeats fit.

    Args:
        calls (dict): What to time, by name.
        device (torch.device): Where it runs; CUDA is timed by events.
        budget (Budget): How long.
        seed (int): Of the order. Defaults to 0.
    """
    order: list[str] = []
    for name, call in calls.items():
        once = _once(call, device)
        if not budget.is_slow(once):  # else it is warm enough
            once = _once(call, device)
        order += [name] * budget.count(once)
    random.Random(seed).shuffle(order)
    times: dict[str, list[float]] = {name: [] for name in calls}
    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for name in order:
            times[name].append(_once(calls[name], device))
    finally:
        if collects:
            gc.enable()
    return {name: Timing.of(values) for name, values in times.items()}
