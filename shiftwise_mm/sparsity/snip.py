"""SNIP: how much the loss depends on each small kernel."""
from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn as nn
from mmengine.dist import all_reduce
from torch import Tensor

from .targets import Target

__all__ = ['NoScoresError', 'snip_scores']


class NoScoresError(ValueError):
    """The loss of a model tells nothing of its kernels."""


def snip_scores(model: nn.Module, data_batch,
                targets: Sequence[Target]) -> list[Tensor]:
    r"""Scores each unit by one batch, through the model's own loss.

    .. math::
        s = \mathrm{mean}_{unit} |w \cdot \partial L / \partial w|

    with the gradient averaged over all ranks. Loss and gradient are those of
    the model's ``train_step``, in full precision, on a copy of the model:
    its statistics, its gradients and the global random generators stay as
    they are. Source: SNIP (arXiv 1810.02340), over small kernels as in the
    published code.

    Args:
        model (nn.Module): With mmengine's ``train_step``, without a wrapper.
        data_batch: As the data loader gives it; it is not changed.
        targets (Sequence[Target]): The masks.

    Returns:
        list[Tensor]: Float32 ``(P, U)`` on the CPU, by target.

    Raises:
        NoScoresError: If the model gives no loss, or one without finite
            gradients of each target.
    """
    twin = copy.deepcopy(model)
    twin.zero_grad()
    backward = _Backward()
    with _undisturbed(targets[0].mask.device):
        twin.train_step(copy.deepcopy(data_batch), backward)
    if not backward.called:
        raise NoScoresError(f'{type(model).__name__}.train_step handed no '
                            'loss to the optimizer wrapper')
    scores = []
    for target in targets:
        weights = target.same_in(twin).weights
        if any(weight.grad is None for weight in weights):
            raise NoScoresError('the loss does not depend on the kernels of '
                                f'{target.layer_name}')
        for weight in weights:
            all_reduce(weight.grad, 'mean')
        sums = target.unit_sums([w * w.grad for w in weights])
        scores.append(sums / (weights[0].numel() / target.units))
    if not all(score.isfinite().all() for score in scores):
        raise NoScoresError('the gradients of the first batch are not finite')
    if not any(score.any() for score in scores):
        raise NoScoresError('the loss of the first batch depends on none of '
                            'the kernels: all scores are 0')
    return scores


class _Backward:
    """Stands where an optimizer wrapper does; only goes backward."""

    called = False

    @contextlib.contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        yield

    def update_params(self, loss: Tensor, *args, **kwargs) -> None:
        self.called = True
        if not loss.requires_grad:
            raise NoScoresError('the loss depends on no parameter')
        loss.backward()


@contextlib.contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """Leaves the global random generators as they were."""
    states = random.getstate(), np.random.get_state()
    devices = [device] if device.type == 'cuda' else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
