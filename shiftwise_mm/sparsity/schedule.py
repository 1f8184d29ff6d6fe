"""When masks change, and by how much."""
from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ['LAST_RATE', 'Schedule']

LAST_RATE = 0.005  # of the published code


@dataclass(frozen=True)
class Schedule:
    """The updates of a training, counted in steps of the optimizer.

    Args:
        interval (int): Steps from one update to the next.
        path_gap (int): Every such update is one of all paths together.
        prune_rate (float): Share of the kept units that the first update
            drops.
        end (int): No update at this step or behind it.
    """

    interval: int
    path_gap: int
    prune_rate: float
    end: int

    def is_update(self, step: int) -> bool:
        """Whether the masks change once ``step`` steps were made."""
        return 0 < step < self.end and step % self.interval == 0

    def is_common(self, step: int) -> bool:
        """Whether the update at ``step`` is one of all paths together."""
        return step // self.interval % self.path_gap == 0

    def rate(self, step: int) -> float:
        r"""Share of the kept units that the update at ``step`` drops.

        .. math::
            r = r_1 + \frac{r_0 - r_1}{2} (1 + \cos(\pi s / s_{end}))

        with :math:`r_0` the ``prune_rate`` and :math:`r_1` 0.005, or
        ``prune_rate`` if that is less.
        """
        last = min(LAST_RATE, self.prune_rate)
        phase = math.pi * min(step / self.end, 1)
        return last + (self.prune_rate - last) / 2 * (1 + math.cos(phase))
