"""The form ``channels``: whole strips, a lane a channel, in inference.

A Taichi kernel without gradients. Where something looks at the operators of a
call (a tracer, a counter) it is passed over, for it would not be seen.
"""
from __future__ import annotations

import torch
from torch import Tensor

from shiftwise_mm.kernels import channel_launch
from shiftwise_mm.kernels.capability import favours_kernels, has_512_bit_units

from .kept_strips import channel_strips_of
from .masks import has_values
from .operator import as_autocast
from .spec import ShiftSpec

__all__ = ['channels_conv', 'channels_reason', 'channels_worth']

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def channels_reason(x: Tensor, spec: ShiftSpec | None) -> str | None:
    """Why the kernel cannot take ``x``, or None."""
    if x.dtype not in _DTYPES:
        return f'it takes float32 and half precision, not {x.dtype}'
    if torch.is_grad_enabled():
        return 'it has no gradients: it runs under torch.no_grad() only'
    if not has_values(x) or torch._C._len_torch_dispatch_stack():
        return ('it takes tensors on the CPU, where no tracer, compiler or '
                'counter looks')
    pixels = x.shape[2] * x.shape[3]
    if pixels % 4 or pixels > 2**22:
        return ('it takes planes of a multiple of 4 pixels, at most '
                f'{2**22}, not {x.shape[2]} x {x.shape[3]}')
    if spec is None:
        return None
    return channel_launch.reason(x, spec.small_kernel, spec.strip_length)


def channels_worth(x: Tensor, training: bool,
                   density: float | None = None) -> bool:
    """Whether it is faster than strips, and than a walk of nearly all taps.

    As measured with AVX2, on Zen 4 and with Intel's AVX-512; on Zen 5, whose
    strips are twice as fast as Zen 4's, it is left to
    :func:`~.autotune.set_autotune`. Of larger planes, whose copies fit no
    cache, the walk is as fast, sooner where vectors are computed whole.
    """
    # Without values it cannot run, and compilers would guard the size.
    most = 2_000 if has_512_bit_units() else 9_000
    return (not training and favours_kernels() and has_values(x)
            and x.shape[2] * x.shape[3] <= most)


def channels_conv(x: Tensor, weight: Tensor, spec: ShiftSpec,
                  outputs: tuple[str, ...],
                  mask: Tensor | None = None) -> tuple[Tensor, ...]:
    """Shift-wise convolution with whole strips, without gradients.

    Args:
        x (Tensor): ``(B, C, H, W)`` on the CPU; half precision is computed in
            float32.
        weight (Tensor): Small kernels ``(C*k, 1, N, N)``.
        spec (ShiftSpec): Sizes and tables.
        outputs (tuple[str]): The outputs wanted, of ``'h', 'v', 'i'``.
        mask (Tensor, optional): Which small kernels are kept, bool
            ``(C*k,)``: the others count as zero.

    Returns:
        tuple[Tensor]: One ``(B, C, H, W)`` for each name, of ``x``'s dtype.
    """
    x, weight = as_autocast(x, weight)
    names = ''.join(name for name in 'vih' if name in outputs)
    results = channel_launch.forward(
        x.detach().float(), channel_strips_of(weight, spec, mask), names)
    return tuple(results[names.index(name)].to(x.dtype) for name in outputs)
