"""The project's goals for whole networks."""
from __future__ import annotations

from collections.abc import Sequence

from .networks import Entry
from .report import Goal

__all__ = ['model_goals']

_SW, _UNIREP, _SLAK = 'SW-T', 'UniRepLKNet-T', 'SLaK-T'
_TRAIN, _DEPLOY = 'training form', 'deployed'


def model_goals(size: Sequence[int], inference: dict, step: dict) -> list:
    """P4 to P7 at 224x224, P10's memory at 800x1344.

    Args:
        size (Sequence[int]): ``(H, W)`` of the images.
        inference, step (dict): Outcomes by :class:`~.networks.Entry`.

    Returns:
        list[Goal]: Those whose networks, sizes and batches were measured.
    """
    goals: list[Goal] = []

    def get(outcomes: dict, batch: int, *entry, **options):
        found = outcomes.get(Entry(*entry, **options))
        return found if found and found.batch == batch else None

    if tuple(size) == (224, 224):
        ours = get(inference, 4, _SW, _DEPLOY)
        for name, asked, what, peer in (
                ('P4', 1.2, 'UniRepLKNet-T, deployed, published composition',
                 get(inference, 4, _UNIREP, _DEPLOY, published=True)),
                ('P4', 1., 'our own best UniRepLKNet-T, deployed',
                 get(inference, 4, _UNIREP, _DEPLOY)),
                ('P5', 2.5, 'SLaK-T, published composition',
                 get(inference, 4, _SLAK, _TRAIN, published=True)),
                ('P5', 2.5, 'our own best SLaK-T, deployed',
                 get(inference, 4, _SLAK, _DEPLOY))):
            if ours and peer:
                goals.append(Goal(name, f'SW-T inference over {what}', asked,
                                  peer.seconds / ours.seconds))
        goals += _training_goals(get(step, 8, _SW, _TRAIN),
                                 get(step, 8, _UNIREP, _TRAIN,
                                     published=True))
    elif tuple(size) == (800, 1344):
        saved = get(step, 2, _SW, _TRAIN, with_cp=True)
        peak = saved and saved.memory[saved.layout]
        if peak:
            goals.append(Goal('P10', 'peak memory of SW-T training, '
                              '2x3x800x1344, with_cp', 8., peak / 1e9,
                              at_least=False, unit=' GB'))
    return goals


def _training_goals(ours, peer) -> list[Goal]:
    if not ours or not peer:
        return []
    what = 'UniRepLKNet-T, published composition'
    goals = [Goal('P6', f'SW-T training step over {what}', 1.4,
                  peer.seconds / ours.seconds)]
    memory = [o.memory[o.layout] for o in (ours, peer)]
    if all(memory):
        goals.append(Goal('P7', f'peak memory of that step, share of {what}',
                          .8, memory[0] / memory[1], at_least=False, unit=''))
    return goals
