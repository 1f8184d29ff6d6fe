"""Which modules of a model have a deployed form, and copies in it."""
from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
import torch.nn as nn

__all__ = ['deployed_copy', 'find_deployables']


def find_deployables(model: nn.Module,
                     prefix: str = '') -> Iterator[tuple[str, nn.Module]]:
    """The modules that can be deployed and are not yet, with their names.

    A module is one if it has ``switch_to_deploy()``, whoever wrote it. Those
    inside another one are its own affair. The names are those of
    ``named_modules()``.
    """
    if hasattr(model, 'switch_to_deploy'):
        if not getattr(model, 'deploy', False):
            yield prefix, model
        return
    for name, child in model.named_children():
        yield from find_deployables(child, f'{prefix}.{name}'.lstrip('.'))


def deployed_copy(module: nn.Module) -> nn.Module:
    """A copy of a module in its deployed form, in eval mode.

    Neither the module nor any random generator is changed: a training goes
    on as if nothing had been.

    Args:
        module (nn.Module): With ``switch_to_deploy()``.

    Raises:
        TypeError: If a norm has no running statistics to fold.
    """
    devices = {p.device for p in module.parameters()} - {torch.device('cpu')}
    cuda = [device.index for device in devices if device.type == 'cuda']
    with torch.random.fork_rng(devices=cuda):  # new layers draw their weights
        copied = copy.deepcopy(module)
        copied.switch_to_deploy()
    return copied.requires_grad_(False).eval()
