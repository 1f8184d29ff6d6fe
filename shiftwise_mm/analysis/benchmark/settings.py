"""What all sub-commands share: where, how long, which rows."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from .machine import Peaks, measure_peaks, provenance, read_device
from .report import Report
from .timing import Budget

__all__ = ['Settings']


@dataclass(frozen=True)
class Settings:
    """How to run a sub-command.

    Attributes:
        device (str): ``'cpu'`` or ``'cuda'``. Defaults to ``'cpu'``.
        threads (int, optional): Of torch; None for what is set.
        budget (Budget): Time of each contestant.
        rows (list[str], optional): Parts of the names of the rows wanted;
            None for all.
        peak_size (int): Side of the matrices that measure the peak; the
            streams have eight times as many elements. Defaults to 2048.
    """

    device: str = 'cpu'
    threads: int | None = None
    budget: Budget = field(default_factory=Budget)
    rows: list[str] | None = None
    peak_size: int = 2048

    @contextmanager
    def start(self, command: str
              ) -> Iterator[tuple[torch.device, Peaks, Report]]:
        """Sets the threads and measures the peaks; undone on leaving.

        Yields:
            tuple: The device, the machine's peaks, an empty report.

        Raises:
            ValueError: If the device is not there, or threads not positive.
        """
        device = read_device(self.device)
        before = torch.get_num_threads()
        if self.threads is not None:
            if self.threads < 1:
                raise ValueError('threads must be at least 1, got '
                                 f'{self.threads}')
            torch.set_num_threads(self.threads)
        try:
            peaks = measure_peaks(device, size=self.peak_size,
                                  elements=8 * self.peak_size**2,
                                  seconds=min(self.budget.seconds, 2.))
            facts = provenance(device)
            facts['budget'] = (f'{self.budget.repeats} repeats'
                               if self.budget.repeats else
                               f'{self.budget.seconds} s')
            yield device, peaks, Report(
                command, facts, {'macs': peaks.macs, 'bytes': peaks.bytes})
        finally:
            torch.set_num_threads(before)
