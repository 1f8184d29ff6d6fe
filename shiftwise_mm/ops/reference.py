"""Shift-add in plain PyTorch: its definition, oracle and fallback."""
from __future__ import annotations

import torch
from torch import Tensor

from .spec import ShiftSpec

__all__ = ['shift_add_reference']


def _shifted(y: Tensor, offset: int, dim: int, start: int,
             length: int) -> Tensor:
    """``y`` read at ``start - offset ..`` along ``dim``, zero outside it."""
    first = start - offset
    inside = slice(max(first, 0), min(first + length, y.shape[dim]))
    shape = list(y.shape)
    shape[dim] = length
    out = y.new_zeros(shape)
    if inside.stop > inside.start:
        out.narrow(dim, inside.start - first,
                   inside.stop - inside.start).copy_(
                       y.narrow(dim, inside.start,
                                inside.stop - inside.start))
    return out


def shift_add_reference(y: Tensor, spec: ShiftSpec,
                        outputs: tuple[str, ...]) -> tuple[Tensor, ...]:
    r"""Shift-add by slices: any device, any floating dtype, autograd.

    With ``e = N // 2`` and ``y`` read as zero outside its borders

    .. math::
        out_H[c,h,w] &= \sum_r \sum_j y[ck+j,\ h+e,\ w-p^H_r(c,j)] \\
        out_V[c,h,w] &= \sum_r \sum_j y[ck+j,\ h-p^V_r(c,j),\ w+e] \\
        out_I[c,h,w] &= \sum_r y[ck+q_r(c),\ h+e,\ w+e]

    The sum runs over repetitions and then positions; half-precision inputs
    are summed in float32. Source: the operator of arXiv 2401.12736.

    Args:
        y (Tensor): ``(B, C*k, H+N-1, W+N-1)``.
        spec (ShiftSpec): Sizes and tables.
        outputs (tuple[str]): The outputs wanted, of ``'h', 'v', 'i'``.

    Returns:
        tuple[Tensor]: One ``(B, C, H, W)`` for each name, of ``y``'s dtype.
    """
    e = spec.small_kernel // 2
    batch, _, height, width = y.shape
    height, width = height - 2 * e, width - 2 * e
    dtype = y.dtype
    if dtype in (torch.float16, torch.bfloat16):
        y = y.float()
    taps = y.view(batch, spec.channels, spec.num_taps, *y.shape[2:])
    channel = torch.arange(spec.channels, device=y.device)
    offsets = spec.position_offsets().tolist()

    def output(name: str) -> Tensor:
        if name == 'i':
            tap = spec.identity_tap.to(y.device)
            return sum(taps[:, channel, tap[r], e:e + height, e:e + width]
                       for r in range(spec.num_reps))
        perm = (spec.perm_h if name == 'h' else spec.perm_v).to(y.device)
        # Across the shift only the centre is read; along it, the offset.
        centre = (taps[..., e:e + height, :]
                  if name == 'h' else taps[..., e:e + width])
        length = width if name == 'h' else height
        dim = -1 if name == 'h' else -2
        return sum(
            _shifted(centre[:, channel, perm[r, :, i]], offset, dim, 0,
                     length)
            for r in range(spec.num_reps) for i, offset in enumerate(offsets))

    return tuple(output(name).to(dtype) for name in outputs)
