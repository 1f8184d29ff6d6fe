"""Strips that inference puts together once, not in each call."""
from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from shiftwise_mm.kernels.capability import has_avx2_only
from shiftwise_mm.kernels.channel_launch import Strips

from .masks import has_values, mask_bytes, masked_weight
from .same_bits import same_bits
from .spec import ShiftSpec
from .strips import fitted_strip, half_of, strip_weights

__all__ = ['strips_of', 'channel_strips_of']

_KEPT = 4  # of a spec: those of a layer's paths, or of an averaged model


@dataclass
class _Kept:
    """Strips by name and places beside the centre, and as the kernel of
    form ``channels`` reads them; what they are made of.
    """
    weight: Tensor
    mask: bytes | None
    strips: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    channels: Strips | None = None


def strips_of(weight: Tensor, spec: ShiftSpec, outputs: tuple[str, ...],
              mask: Tensor | None,
              size: tuple[int, int]) -> list[tuple[Tensor, int]]:
    """The strips of masked small kernels, one an output.

    Where nothing can need a gradient on a CPU they are kept with the spec,
    without what cannot touch the image, and the weights are compared with
    those that they were made of: a tenth of the work, and a change in any way
    is seen.

    Args:
        weight (Tensor): Small kernels ``(C*k, 1, N, N)``.
        spec (ShiftSpec): Sizes and tables.
        outputs (tuple[str]): Of ``'h', 'v', 'i'``.
        mask (Tensor, optional): Which small kernels are kept, bool
            ``(C*k,)``.
        size (tuple[int, int]): ``H, W`` of the image.

    Returns:
        list[tuple[Tensor, int]]: Kernels as :func:`~.strips.strip_weights`
        has them; the first place of a strip sits at minus the number.
    """
    before = spec.large_kernel // 2
    if torch.is_grad_enabled() or torch.is_autocast_enabled('cpu') or \
            not has_values(weight):
        weight = masked_weight(weight, mask)
        return [(strip_weights(weight, spec, name), before)
                for name in outputs]
    values = None if mask is None else mask_bytes(mask.cpu())
    kept = _find(weight, spec, values)
    after = spec.strip_length - 1 - before
    halves = {name: half_of(before, after, length)
              for name, length in zip('vh', size, strict=True)}
    keys = [(name, halves.get(name, before)) for name in outputs]
    missing = [key for key in keys if key not in kept.strips]
    if missing:
        with torch.inference_mode(False):
            masked = masked_weight(kept.weight, mask)
            for name, half in missing:
                strip = strip_weights(masked, spec, name)
                if name != 'i':
                    strip = fitted_strip(strip, before, half,
                                         2 if name == 'v' else 3)
                if name == 'h' and has_avx2_only():
                    # Mostly it is read as a tall one.
                    strip = strip.transpose(2, 3).contiguous().transpose(2, 3)
                kept.strips[name, half] = strip
    return [(kept.strips[key], key[1]) for key in keys]


def channel_strips_of(weight: Tensor, spec: ShiftSpec,
                      mask: Tensor | None) -> Strips:
    """All strips of masked small kernels, for form ``channels``.

    They are kept as by :func:`strips_of`.

    Args:
        weight (Tensor): Small kernels ``(C*k, 1, N, N)``, on the CPU.
        spec (ShiftSpec): Sizes and tables.
        mask (Tensor, optional): Which small kernels are kept, bool
            ``(C*k,)``.
    """
    kept = _find(weight, spec, None if mask is None else
                 mask_bytes(mask.cpu()))
    if kept.channels is None:
        with torch.inference_mode(False):
            masked = masked_weight(kept.weight, mask)
            strips = {name: strip_weights(masked, spec, name)
                      for name in spec.outputs}
            kept.channels = Strips.of(
                strips['h'], strips['v'], spec.large_kernel // 2,
                strips.get('i'))
    return kept.channels


def _find(weight: Tensor, spec: ShiftSpec, mask: bytes | None) -> _Kept:
    """What is kept of these weights; the last used stands first."""
    all_kept = spec.cached('strips', list)
    for kept in all_kept:
        if kept.mask == mask and same_bits(kept.weight, weight):
            break
    else:
        with torch.inference_mode(False):
            kept = _Kept(weight.detach().clone(), mask)
    # Replaced and not changed: other threads may be reading it.
    all_kept[:] = [kept, *(k for k in all_kept if k is not kept)][:_KEPT]
    return kept
