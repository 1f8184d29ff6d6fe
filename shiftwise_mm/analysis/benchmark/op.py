"""Sub-command ``op``: the operator, and shift-add alone."""
from __future__ import annotations

from collections.abc import Sequence

from shiftwise_mm.ops import ShiftSpec

from .case import Case
from .contestants import (
    GROUPED,
    PUBLISHED,
    conv_contestants,
    select,
    shift_contestants,
)
from .counts import conv_work, shift_work
from .report import Goal, Report
from .settings import Settings
from .trial import Trial, run_trial, trial_table

__all__ = ['run_op']

AUTO, SLICING = 'ours, auto', 'slicing'
# Shape, large kernel, small kernel, repetitions: what the goals name.
CASES = (((4, 60, 56, 56), 51, 3, 4), ((4, 124, 56, 56), 51, 5, 1))
# The same of shift-add alone, and the outputs.
SHIFTS = (((4, 124, 56, 56), 51, 5, 1, ('h', )),
          ((4, 124, 56, 56), 51, 5, 4, ('h', 'v', 'i')))


def run_op(settings: Settings, *,
           shape: Sequence[int] | None = None,
           batch: int | None = None,
           kernel: Sequence[int] = (51, 3),
           num_reps: int = 4,
           density: float = 1.) -> Report:
    """Measures the operator against every other way to compute it.

    Args:
        settings (Settings): Device, time, rows.
        shape (Sequence[int], optional): ``(B, C, H, W)`` of one case; by
            default the cases that the project's goals name.
        batch (int, optional): Takes the place of ``B``.
        kernel (Sequence[int]): ``(M, N)``, read with ``shape``.
        num_reps (int): ``R``, read with ``shape``.
        density (float): Share of the taps that are kept. Defaults to 1.

    Raises:
        TypeError, ValueError: If an argument is not allowed.
        Disagreement: If a contestant computes something else.
    """
    if shape is None:
        cases, shifts = CASES, SHIFTS
    else:
        cases = ((tuple(shape), *kernel, num_reps), )
        shifts = ((*cases[0], ('h', 'v', 'i')), )
    with settings.start('op') as (device, peaks, report):
        for given, large, small, reps in cases:
            shape = (batch or given[0], *given[1:])
            spec = ShiftSpec.from_seed(channels=shape[1], large_kernel=large,
                                       small_kernel=small, num_reps=reps)
            case = Case(spec, shape, device, density=density)
            trial = run_trial(select(conv_contestants(case), settings.rows),
                              case, settings.budget)
            report.tables.append(trial_table(
                f'operator, {_words(shape, large, small, reps)}'
                + (f', density {density:g}' if density < 1 else ''), trial,
                peaks,
                conv_work(spec, shape, case.outputs, density=density),
                conv_work(spec, shape, case.outputs, backward=True,
                          density=density), SLICING, GROUPED))
            if density == 1:
                report.goals += _conv_goals(trial, (shape, large, small,
                                                    reps))
        for given, large, small, reps, outputs in shifts:
            shape = (batch or given[0], *given[1:])
            spec = ShiftSpec.from_seed(channels=shape[1], large_kernel=large,
                                       small_kernel=small, num_reps=reps)
            case = Case(spec, shape, device, outputs)
            contestants = shift_contestants(case)
            if settings.rows:  # rows of the operator alone are none here
                contestants = [c for c in contestants if any(
                    row.lower() in c.name.lower() for row in settings.rows)]
            if not contestants:
                continue
            trial = run_trial(contestants, case, settings.budget)
            report.tables.append(trial_table(
                f'shift-add alone, {_words(shape, large, small, reps)}, '
                f'outputs {" ".join(outputs)}', trial, peaks,
                shift_work(spec, shape, outputs),
                shift_work(spec, shape, outputs, backward=True), SLICING,
                None))
            report.goals += _shift_goals(
                trial, (shape, large, small, reps, outputs))
    return report


def _words(shape: Sequence[int], large: int, small: int, reps: int) -> str:
    return f'{tuple(shape)}, M {large}, N {small}, reps {reps}'


def _ratio(trial: Trial, peer: str, ours: str, both: bool) -> float | None:
    """How many times faster ours is than a peer, or None."""
    if peer not in trial.figures or ours not in trial.figures:
        return None
    slow, fast = (trial.figures[name] for name in (peer, ours))
    return slow.both.median / fast.both.median if both \
        else slow.forward.median / fast.forward.median


def _conv_goals(trial: Trial, case: tuple) -> list[Goal]:
    """P1 to P3, for the shapes that they name."""
    goals = []

    def add(name: str, what: str, asked: float, peer: str | None,
            both: bool) -> None:
        ratio = peer and _ratio(trial, peer, AUTO, both)
        if ratio:
            goals.append(Goal(name, f'{what} {peer}', asked, ratio))

    for both in (False, True):
        best = trial.best('dense', both)
        peer = best and best[0]
        if case == CASES[0]:
            name = 'P2' if both else 'P1'
            what = 'operator fwd+bwd over' if both else \
                'operator forward over'
            add(name, what, 300 if both else 28, SLICING, both)
            add(name, what, 1.2 if both else 1.3, peer, both)
        elif case == CASES[1] and both:
            what = 'operator N 5 fwd+bwd over'
            add('P3', what, 25, SLICING, both)
            add('P3', what, 10, peer, both)
    return goals


def _shift_goals(trial: Trial, case: tuple) -> list[Goal]:
    """P8, for the shapes that it names."""
    for which, peer, asked in ((SHIFTS[0], PUBLISHED, 4.),
                               (SHIFTS[1], SLICING, 2.)):
        ratio = _ratio(trial, peer, 'ours, taichi', both=False)
        if case == which and ratio:
            return [Goal('P8', f'Taichi shift-add forward, reps {which[3]}, '
                         f'over {peer}', asked, ratio)]
    return []
