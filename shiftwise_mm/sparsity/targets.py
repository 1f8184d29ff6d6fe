"""The masks of a model and what they are for."""
from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch import Tensor

from shiftwise_mm.models.layers.kernel_masks import MASK_NAMES, KernelMasks

__all__ = ['Target', 'check_masks', 'find_targets', 'stage_of']

_STAGE = re.compile(r'(?:^|\.)(stage|layer)s?\.?(\d+)(?:\.|$)')
# Beside its masks a layer has one of these.
_BESIDE = ('rep_index', 'conv_i.weight')


@dataclass(frozen=True)
class Target:
    """One mask in a model, with the weights that it is for.

    A *unit* is what a flag of the mask is for: a small kernel, or a weight.

    Args:
        layer_name (str): Name of the layer in the model.
        layer (nn.Module): The layer.
        mask_name (str): Name of the mask in the layer.
    """

    layer_name: str
    layer: KernelMasks
    mask_name: str

    @property
    def name(self) -> str:
        """Name of the mask in the model."""
        return f'{self.layer_name}.{self.mask_name}'.lstrip('.')

    @property
    def stage(self) -> str:
        """See :func:`stage_of`."""
        return stage_of(self.layer_name)

    @property
    def mask(self) -> Tensor:
        """The mask itself, bool."""
        return getattr(self.layer, self.mask_name)

    @property
    def weights(self) -> tuple[nn.Parameter, ...]:
        """The weights, one a path."""
        return self.layer.masked_kernels()[self.mask_name]

    @property
    def units(self) -> int:
        """Units of a path, ``U``."""
        return self.mask[0].numel()

    def flags(self) -> Tensor:
        """A copy of the mask on the CPU, bool ``(P, U)``."""
        return self.mask.flatten(1).cpu().clone()

    def set_flags(self, flags: Tensor) -> None:
        """Sets the mask, ``(P, U)`` or for all paths ``(U,)``."""
        shape = self.mask.shape
        self.layer.set_mask(
            self.mask_name, flags.expand(shape[0], -1).reshape(shape))

    def unit_sums(self, tensors: Sequence[Tensor]) -> Tensor:
        """Sum of the absolute values of each unit.

        Args:
            tensors (Sequence[Tensor]): One a path, of the weights' shape.

        Returns:
            Tensor: Float32 ``(P, U)`` on the CPU, where all decisions are
            made: they are the same whatever the device.
        """
        values = torch.stack([t.detach().float().abs() for t in tensors])
        sums = values.flatten(2).sum(2) if self.mask.dim() == 2 else \
            values.flatten(1)
        return sums.cpu()

    def same_in(self, model: nn.Module) -> Target:
        """The mask of that name in a copy of the model."""
        return Target(self.layer_name, model.get_submodule(self.layer_name),
                      self.mask_name)


def stage_of(layer_name: str) -> str:
    """``stage0`` of ``backbone.stages.0.1...``, ``layer3`` of a ResNet's
    ``backbone.layer3...``, else ``other``.
    """
    found = _STAGE.search(layer_name)
    return ''.join(found.groups()) if found else 'other'


def find_targets(model: nn.Module, granularity: str) -> list[Target]:
    """The masks of all layers whose kernels are trained, added if need be.

    Args:
        model (nn.Module): Any model, without a wrapper.
        granularity (str): See
            :meth:`~shiftwise_mm.models.layers.kernel_masks.KernelMasks.add_masks`.

    Returns:
        list[Target]: In the order of the layers; empty if there is none.

    Raises:
        ValueError: If a layer cannot have masks of that granularity.
    """
    found = []
    for name, layer in model.named_modules():
        if not isinstance(layer, KernelMasks):
            continue
        kernels = layer.masked_kernels()
        if not all(w.requires_grad for ws in kernels.values() for w in ws):
            continue  # frozen: dropping would only do harm
        try:
            layer.add_masks(granularity)
        except ValueError as error:
            raise ValueError(f'{name}: {error}') from error
        found += [Target(name, layer, mask_name) for mask_name in kernels]
    return found


def check_masks(model: nn.Module, targets: Sequence[Target],
                weights: Mapping[str, Tensor]) -> list[str]:
    """Whether the masks in a checkpoint are of layers of the model.

    Masks of layers that have none, such as frozen ones, are no error: they
    are left out.

    Args:
        model (nn.Module): Without a wrapper.
        targets (Sequence[Target]): Its masks.
        weights (Mapping): Names in the model to tensors.

    Returns:
        list[str]: Names of the model's masks that the checkpoint lacks.

    Raises:
        ValueError: If a mask has another shape than that of the layer, or
            the model has no such layer.
    """
    own = {target.name: target.mask for target in targets}
    layers = {name for name, _ in model.named_modules()}
    for name, mask in weights.items():
        layer, _, last = name.rpartition('.')
        if last not in MASK_NAMES or not any(
                f'{layer}.{beside}' in weights for beside in _BESIDE):
            continue
        if layer not in layers:
            raise ValueError(f'the mask {name} of the checkpoint fits no '
                             'layer of the model')
        if name in own and mask.shape != own[name].shape:
            raise ValueError(
                f'the mask {name} of the checkpoint, {tuple(mask.shape)}, '
                f'does not fit that of the layer, {tuple(own[name].shape)}: '
                'granularity and the options of the layer must be those of '
                'the checkpoint')
    return [name for name in own if name not in weights]
