"""Names of the backbones that a config can be given."""
from __future__ import annotations

import copy

__all__ = ['BACKBONES', 'SwapError', 'backbone_config']


class SwapError(ValueError):
    """The backbone of a config cannot be swapped; a sentence says why."""


BACKBONES = {
    **{f'shiftwise-{arch}': dict(type='shiftwise_mm.ShiftWiseNet', arch=arch)
       for arch in ('nano', 'tiny', 'small', 'base', 'large')},
    **{f'shiftwise-slak-{arch}': dict(type='shiftwise_mm.ShiftWiseNet',
                                      style='slak', arch=arch)
       for arch in ('nano', 'tiny', 'small', 'base')},
    **{f'slak-{arch}': dict(type='shiftwise_mm.SLaK', arch=arch)
       for arch in ('tiny', 'small', 'base')},
    **{f'unireplknet-{arch}': dict(type='shiftwise_mm.UniRepLKNet', arch=arch)
       for arch in ('a', 'f', 'p', 'n', 't', 's', 'b', 'l', 'xl')},
    **{f'convnext-{arch}': dict(type='shiftwise_mm.ConvNeXt', arch=arch)
       for arch in ('tiny', 'small', 'base')},
}
"""Config of each backbone by its name, as published."""


def backbone_config(name: str) -> dict:
    """A copy of the config of a backbone.

    Raises:
        SwapError: If the name is not one of :data:`BACKBONES`.
    """
    if name not in BACKBONES:
        raise SwapError(f'backbone must be one of {", ".join(BACKBONES)}, '
                        f'got {name!r}')
    return copy.deepcopy(BACKBONES[name])
