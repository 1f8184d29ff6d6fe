"""Checks contestants, then times them and measures their memory."""
from __future__ import annotations

from dataclasses import dataclass

from .agreement import Disagreement
from .case import Case
from .contestants import Contestant, Runner, check
from .counts import Work
from .machine import Peaks
from .memory import peak_memory
from .report import Table
from .timing import Budget, Timing, measure

__all__ = ['Trial', 'Figures', 'run_trial', 'trial_table', 'percents', 'mega']


@dataclass(frozen=True)
class Figures:
    """What was measured of a contestant.

    Attributes:
        kind (str): See :class:`~.contestants.Contestant`.
        forward, both (Timing): Forward alone, forward and backward.
        forward_memory, both_memory (int, optional): Peak bytes above the
            inputs.
    """

    kind: str
    forward: Timing
    both: Timing
    forward_memory: int | None
    both_memory: int | None

    @property
    def backward(self) -> float:
        """Seconds of the backward pass: the difference of the two."""
        return self.both.median - self.forward.median


@dataclass
class Trial:
    """Figures by contestant, and who could not run.

    Attributes:
        figures (dict[str, Figures]): By name of the row.
        left_out (list[str]): ``'name: reason'``.
    """

    figures: dict[str, Figures]
    left_out: list[str]

    def best(self, kind: str, both: bool = False) -> tuple[str, float] | None:
        """Fastest contestant of a kind, and its median in seconds."""
        times = {
            name: (f.both if both else f.forward).median
            for name, f in self.figures.items() if f.kind == kind
        }
        return min(times.items(), key=lambda item: item[1], default=None)


def run_trial(contestants: list[Contestant], case: Case,
              budget: Budget) -> Trial:
    """Runs all that can; no figure before they agree.

    A contestant that cannot be built or run here (a library is missing, a
    compiler fails) is left out with its reason. One that computes something
    else ends everything.

    Raises:
        Disagreement: If outputs or gradients differ, naming the contestant.
    """
    runners: dict[str, Runner] = {}
    left_out = []
    for contestant in contestants:
        try:
            runner = Runner(contestant, None if contestant.kind == 'part'
                            else case.grads)
            if contestant.kind != 'part':
                check(runner, case)
        except Disagreement:
            raise
        except Exception as error:  # whatever a library or compiler raises
            first = (str(error) or repr(error)).splitlines()[0]
            left_out.append(f'{contestant.name} is left out: {first}')
            continue
        runners[contestant.name] = runner
    forward, both = (
        measure({name: getattr(runner, what)
                 for name, runner in runners.items()}, case.device, budget)
        for what in ('forward', 'both'))
    figures = {
        name: Figures(runner.contestant.kind, forward[name], both[name],
                      peak_memory(runner.forward, case.device),
                      peak_memory(runner.both, case.device))
        for name, runner in runners.items()
    }
    return Trial(figures, left_out)


def percents(peaks: Peaks, seconds: float, work: Work) -> dict:
    """The two columns that every table has."""
    macs, num_bytes = peaks.percent(seconds, work.macs, work.bytes)
    return {'% GMAC/s': macs, '% GB/s': num_bytes}


def trial_table(title: str, trial: Trial, peaks: Peaks, forward: Work,
                both: Work, baseline: str, share_of: str | None) -> Table:
    """One row a contestant, the fastest first.

    Args:
        title (str): Of the table.
        trial (Trial): What was measured.
        peaks (Peaks): Of the machine.
        forward, both (Work): What a row's percents count.
        baseline (str): Contestant that ratios refer to.
        share_of (str, optional): The part that is no shifting; the column
            ``shift share`` is what a row of strategies takes beyond it.
    """
    table = Table(title)
    base = trial.figures.get(baseline)
    part = trial.figures.get(share_of) if share_of else None
    order = sorted(trial.figures.items(),
                   key=lambda item: item[1].forward.median)
    for name, f in order:
        row = {
            'contestant': name,
            'forward ms': 1e3 * f.forward.median,
            'x': base and base.forward.median / f.forward.median,
            **percents(peaks, f.forward.median, forward),
            'fwd+bwd ms': 1e3 * f.both.median,
            'x ': base and base.both.median / f.both.median,
            '% GMAC/s ': peaks.percent(f.both.median, both.macs,
                                       both.bytes)[0],
            'forward MB': mega(f.forward_memory),
            'fwd+bwd MB': mega(f.both_memory),
            'repeats': f'{f.forward.repeats}/{f.both.repeats}',
        }
        if share_of:
            shifts = part and f.kind in ('torch', 'published')
            row['shift share'] = (
                max(1 - part.forward.median / f.forward.median, 0.)
                if shifts else None)
        table.rows.append(row)
    table.notes += [
        f'x: times faster than {baseline}' if base else
        f'x: {baseline} did not run',
        f'percent of peak counts {forward.macs / 1e9:.3g} GMAC and '
        f'{forward.bytes / 1e6:.3g} MB forward, {both.macs / 1e9:.3g} GMAC '
        f'and {both.bytes / 1e6:.3g} MB with the backward pass: the fewest '
        'of the direct algorithm, see counts.py',
        'MB: peak above the inputs', *trial.left_out
    ]
    return table


def mega(num_bytes: int | None) -> float | None:
    return None if num_bytes is None else num_bytes / 1e6
