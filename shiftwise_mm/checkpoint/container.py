"""The weights inside a checkpoint, whatever its training code wrapped them in.
"""
from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

__all__ = ['CONTAINERS', 'Opened', 'open_container']

# Where checkpoints keep their weights, the first found is taken: mmengine's,
# then those of the published training codes.
CONTAINERS = ('state_dict', 'model', 'model_ema')


@dataclass(frozen=True)
class Opened:
    """Weights and what was beside them.

    Args:
        state_dict (dict): Names to tensors.
        container (str): Name under which they lay, '' if under none.
        args (dict, optional): The options of the training, as published
            files hold them.
    """

    state_dict: dict
    container: str
    args: dict | None


def open_container(checkpoint: Mapping,
                   container: str | None = None) -> Opened:
    """Finds the weights in what ``torch.load`` returned.

    Args:
        checkpoint (Mapping): A whole checkpoint, or names to tensors.
        container (str, optional): Which of :data:`CONTAINERS` to take.
            Defaults to the first that is there.

    Raises:
        TypeError: If the checkpoint is not a mapping.
        ValueError: If it holds no weights, or not under that name; the
            message tells what it holds.
    """
    if not isinstance(checkpoint, Mapping):
        raise TypeError('a checkpoint must be a mapping, got '
                        f'{type(checkpoint).__name__}')
    if container is not None and container not in CONTAINERS:
        raise ValueError(f'container must be one of {CONTAINERS}, got '
                         f'{container!r}')
    held = [name for name in CONTAINERS
            if _holds_tensors(checkpoint.get(name))]
    if container is None and held:
        container = held[0]
    if container is None:
        if _holds_tensors(checkpoint):
            return Opened(dict(checkpoint), '', None)
    elif container in held:
        return Opened(dict(checkpoint[container]), container,
                      _args_of(checkpoint))
    names = [str(name) for name in checkpoint]
    shown = ', '.join(names[:8]) + (', ...' if len(names) > 8 else '')
    raise ValueError(
        f'no weights under {container or " or ".join(CONTAINERS)}, nor on '
        f'their own; the checkpoint holds: {shown or "nothing"}')


def _holds_tensors(value) -> bool:
    return (isinstance(value, Mapping)
            and all(isinstance(name, str) for name in value)
            and any(isinstance(v, Tensor) for v in value.values()))


def _args_of(checkpoint: Mapping) -> dict | None:
    args = checkpoint.get('args')
    if isinstance(args, argparse.Namespace):
        return vars(args)
    return dict(args) if isinstance(args, Mapping) else None
