"""Gradients of masked weights: kept from the optimizer, used to grow."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn as nn
from mmengine.dist import all_reduce
from torch import Tensor

from shiftwise_mm.models.layers.kernel_masks import spread_mask

from .targets import Target

__all__ = ['MaskedGradients']


class MaskedGradients:
    """Makes the gradients of masked weights zero as they arise.

    Zeroed before anything is added up, they move nothing: not the norm by
    which gradients are clipped, not a moment of the optimizer, not the check
    for infinities of mixed precision. The whole gradients are collected
    beside them where growing asks for them.

    Args:
        targets (Sequence[Target]): The masks.
        wanted (Callable): Whether to collect, asked in each backward pass.
    """

    def __init__(self, targets: Sequence[Target],
                 wanted: Callable[[], bool]) -> None:
        self._targets = targets
        self._wanted = wanted
        self._whole: dict[nn.Parameter, Tensor] = {}
        self._handles: list = []

    def attach(self) -> None:
        """Begins to watch the backward passes."""
        for target in self._targets:
            for path, weight in enumerate(target.weights):
                self._handles.append(weight.register_hook(
                    self._hook(target, path, weight)))

    def detach(self) -> None:
        """Lets go of the parameters."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._whole.clear()

    def _hook(self, target: Target, path: int,
              weight: nn.Parameter) -> Callable[[Tensor], Tensor]:

        def hook(grad: Tensor) -> Tensor:
            if self._wanted():
                self._collect(weight, grad.detach())
            kept = spread_mask(target.mask[path], weight)
            return grad.masked_fill(~kept, 0)

        return hook

    def _collect(self, weight: nn.Parameter, grad: Tensor) -> None:
        # Gradients add up from one step of the optimizer to the next; one
        # that is skipped leaves nothing behind.
        if weight.grad is None or not weight.grad.any():
            self._whole.pop(weight, None)
        before = self._whole.get(weight)
        self._whole[weight] = grad.clone() if before is None else \
            before + grad

    def take(self, target: Target) -> list[Tensor]:
        """The gradients since the last step, averaged over all ranks.

        Returns:
            list[Tensor]: One a path; zeros where there was none.
        """
        grads = []
        for weight in target.weights:
            grad = self._whole.pop(weight, None)
            grad = torch.zeros_like(weight) if grad is None else grad
            all_reduce(grad, 'mean')
            grads.append(grad)
        return grads
