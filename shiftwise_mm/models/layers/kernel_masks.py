"""Masks over the kernels of a layer, for sparse training."""
from __future__ import annotations

import torch
import torch.nn as nn
from torch import Tensor

__all__ = ['GRANULARITIES', 'MASK_NAMES', 'KernelMasks', 'spread_mask']

GRANULARITIES = ('tap', 'weight')
MASK_NAMES = ('mask', 'mask_h', 'mask_v')


class KernelMasks:
    """What a layer has whose kernels can be masked; a mixin of modules.

    A mask is a persistent bool buffer over ``P`` weights of shape
    ``(n, 1, height, width)``, one weight a path: ``(P, n)`` with a flag a
    kernel, or ``(P, n, height, width)`` with a flag a weight. True is kept.
    Before :meth:`add_masks` there is none, and the state dict is that of a
    layer that knows nothing of masks.

    Nothing is multiplied by a mask in the forward pass: the weights that are
    masked are zero, and whoever changes weights keeps them so
    (:meth:`set_mask`).

    A state dict with masks loads into a layer without them: the masks are
    left out, since they would be wrong after the next training step. One
    without masks leaves those of the layer as they are.
    """

    def masked_kernels(self) -> dict[str, tuple[nn.Parameter, ...]]:
        """Names of the masks, each with its weights, one a path."""
        raise NotImplementedError

    def add_masks(self, granularity: str) -> None:
        """Adds the masks, all True; those that fit already stay.

        Args:
            granularity (str): ``'tap'`` for a flag a kernel, ``'weight'`` for
                a flag a weight.

        Raises:
            ValueError: If the granularity is unknown, or is ``'tap'`` and the
                kernels are long ones, which are not made of taps.
        """
        if granularity not in GRANULARITIES:
            raise ValueError(f'granularity must be one of {GRANULARITIES}, '
                             f'got {granularity!r}')
        for name, weights in self.masked_kernels().items():
            count, _, height, width = weights[0].shape
            if granularity == 'tap' and height != width:
                raise ValueError(
                    f"granularity='tap' needs small kernels, got kernels of "
                    f'{height}x{width}: take granularity=\'weight\' or a '
                    "layer of small kernels (SLaK: form='shiftwise')")
            shape = (len(weights), count) + (
                (height, width) if granularity == 'weight' else ())
            mask = getattr(self, name, None)
            if mask is None or mask.shape != shape:
                self.register_buffer(name, torch.ones(
                    shape, dtype=torch.bool, device=weights[0].device))

    def remove_masks(self) -> None:
        """Removes the masks; the weights stay as they are."""
        for name in MASK_NAMES:
            self._buffers.pop(name, None)

    @torch.no_grad()
    def set_mask(self, name: str, mask: Tensor) -> None:
        """Copies a mask in, and makes the weights that it masks zero.

        Args:
            name (str): One of :meth:`masked_kernels`.
            mask (Tensor): Bool, of the shape of the mask.
        """
        own = getattr(self, name)
        own.copy_(mask)
        for flags, weight in zip(own, self.masked_kernels()[name],
                                 strict=True):
            weight.masked_fill_(~spread_mask(flags, weight), 0)

    def union_mask(self, name: str = 'mask') -> Tensor | None:
        """Which kernels any path keeps: what is left to compute.

        Args:
            name (str): One of :meth:`masked_kernels`.

        Returns:
            Tensor | None: Bool ``(n,)``, of a :class:`ShiftWiseConv2d`
            ``(n_rep*k,)``; a new tensor. None if the layer has no such mask.
        """
        mask = getattr(self, name, None)
        if mask is None:
            return None
        return mask.transpose(0, 1).flatten(1).any(1)

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        for name in MASK_NAMES:
            own, key = getattr(self, name, None), prefix + name
            if own is None:
                state_dict.pop(key, None)
            elif key not in state_dict:
                state_dict[key] = own
            elif state_dict[key].shape != own.shape:
                raise ValueError(
                    f'{key} of the checkpoint has the shape '
                    f'{tuple(state_dict[key].shape)}, the mask of the layer '
                    f'{tuple(own.shape)}: granularity and layer must be those '
                    'of the checkpoint')
        super()._load_from_state_dict(state_dict, prefix, *args)


def spread_mask(flags: Tensor, weight: Tensor) -> Tensor:
    """The flags of one path, as they broadcast with its weight.

    Args:
        flags (Tensor): ``(n,)`` or ``(n, height, width)``.
        weight (Tensor): ``(n, 1, height, width)``.

    Returns:
        Tensor: ``(n, 1, 1, 1)`` or ``(n, 1, height, width)``.
    """
    return flags.reshape(len(weight), 1, *(flags.shape[1:] or (1, 1)))
