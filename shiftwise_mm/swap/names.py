"""Names of the backbones that a config can be given."""
from __future__ import annotations

from shiftwise_mm import zoo
from shiftwise_mm.zoo import BACKBONES

__all__ = ['BACKBONES', 'SwapError', 'backbone_config']


class SwapError(ValueError):
    """The backbone of a config cannot be swapped; a sentence says why."""


def backbone_config(name: str) -> dict:
    """A copy of the config of a backbone.

    Raises:
        SwapError: If the name is not one of :data:`BACKBONES`.
    """
    try:
        return zoo.backbone_config(name)
    except ValueError as error:
        raise SwapError(str(error)) from None
