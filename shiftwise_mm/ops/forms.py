"""The public operators and the ordered tables of the ways to compute them.

Each table is the single source of the automatic choice, of what users are
shown, and of the error when a name was asked for that cannot run. An entry is
``(name, reason, worth, function)``; ``reason(tensor, spec)`` says why the
entry cannot take the tensor (with this spec, if one is given), or None, and
``worth(tensor, training, density)`` whether it is faster there than those
behind it.
The first that can run and is worth it is the automatic choice, unless
:mod:`.autotune` measures all that can run.
"""
from __future__ import annotations

import warnings
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from shiftwise_mm.kernels import runtime

from . import autotune, prepared
from .channels import channels_conv, channels_reason, channels_worth
from .fused import fused_conv, fused_reason, fused_worth, prepared_fused
from .kept_strips import strips_of
from .masks import (
    check_mask,
    density_of,
    has_values,
    masked_weight,
    nothing,
)
from .reference import shift_add_reference
from .shift_kernel import shift_add_taichi, taichi_reason
from .spec import ShiftSpec
from .strips import rows_are_faster, strip_conv

__all__ = [
    'shift_add', 'shiftwise_conv', 'available_backends', 'available_forms',
    'FORM_NAMES'
]


def _shift_form(x: Tensor, weight: Tensor, spec: ShiftSpec,
                outputs: tuple[str, ...],
                mask: Tensor | None = None) -> tuple[Tensor, ...]:
    """Convolution with all small kernels, then shift-add."""
    y = F.conv2d(x, masked_weight(weight, mask),
                 padding=spec.small_kernel - 1, groups=x.shape[1])
    return shift_add(y, spec, outputs=outputs)


def _strip_form(x: Tensor, weight: Tensor, spec: ShiftSpec,
                outputs: tuple[str, ...],
                mask: Tensor | None = None) -> tuple[Tensor, ...]:
    """One depthwise convolution an output; the k-fold ``y`` never exists."""
    strips = strips_of(weight, spec, outputs, mask, x.shape[2:])
    if not torch.is_grad_enabled() and has_values(x):
        # Faster, the way there included, than wide strips in rows.
        x = x.contiguous(memory_format=torch.contiguous_format if
                         rows_are_faster(x, spec) else torch.channels_last)
    return tuple(strip_conv(x, strip, spec, name, before) for name, (
        strip, before) in zip(outputs, strips, strict=True))


def _torch_reason(tensor: Tensor, spec: ShiftSpec | None) -> str | None:
    """Why plain PyTorch cannot take the tensor, or None."""
    if not tensor.is_floating_point():
        return f'it takes floating tensors, not {tensor.dtype}'
    return None


def _always(tensor: Tensor, training: bool, density: float | None) -> bool:
    return True


_BACKENDS = (
    ('taichi', taichi_reason, _always, shift_add_taichi),
    ('reference', _torch_reason, _always, shift_add_reference),
)
_FORMS = (
    ('fused', fused_reason, fused_worth, fused_conv),
    ('channels', channels_reason, channels_worth, channels_conv),
    ('strip', _torch_reason, _always, _strip_form),
    ('shift', _torch_reason, _always, _shift_form),
)
FORM_NAMES = ('auto', *(name for name, *_ in _FORMS))


def available_backends(y: Tensor) -> dict[str, str | None]:
    """Every backend of :func:`shift_add`, and why it cannot take ``y``.

    Returns:
        dict[str, str | None]: None for a backend that can run; in the order
        in which ``backend='auto'`` prefers them.
    """
    return {name: reason(y, None) for name, reason, *_ in _BACKENDS}


def available_forms(x: Tensor,
                    spec: ShiftSpec | None = None) -> dict[str, str | None]:
    """Every form of :func:`shiftwise_conv`, and why it cannot take ``x``.

    Args:
        x (Tensor): The input.
        spec (ShiftSpec, optional): The convolution; without it only what
            depends on the input is told.

    Returns:
        dict[str, str | None]: None for a form that can run; in the order in
        which ``form='auto'`` prefers them.
    """
    return {name: reason(x, spec) for name, reason, *_ in _FORMS}


def _choose(kind: str, table: tuple, wanted: str, tensor: Tensor,
            spec: ShiftSpec, training: bool, density: float | None = None):
    """The function of ``wanted``, or of the first entry worth running."""
    names = ('auto', *(name for name, *_ in table))
    if wanted not in names:
        raise ValueError(f'{kind} must be one of {names}, got {wanted!r}')
    for name, reason, worth, function in table:
        if wanted not in ('auto', name) or \
                wanted != name and not worth(tensor, training, density):
            continue
        why = reason(tensor, spec)
        if why is None:
            return function
        if wanted == name:
            raise ValueError(f'{kind}={name!r} cannot run: {why}')
        if name != wanted and runtime.is_foreign() and \
                name in ('taichi', 'fused'):
            # warnings shows it once: the message is the same each time.
            warnings.warn(f'{kind}={name!r} is passed over: {why}',
                          RuntimeWarning, stacklevel=3)
    raise RuntimeError(f'no {kind} can take {tensor.dtype} on '
                       f'{tensor.device}')


def _checked_outputs(outputs, spec: ShiftSpec) -> tuple[str, ...]:
    if not isinstance(spec, ShiftSpec):
        raise TypeError(f'spec must be a ShiftSpec, got {type(spec).__name__}')
    outputs = (outputs, ) if isinstance(outputs, str) else tuple(outputs)
    if not outputs or any(name not in spec.outputs for name in outputs):
        raise ValueError(f'outputs must be names out of {spec.outputs} for '
                         f'{spec}, got {outputs!r}')
    return outputs


def _check_tensor(name: str, tensor: Tensor, channels: int) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f'{name} must be a tensor, got '
                        f'{type(tensor).__name__}')
    if not tensor.is_floating_point():
        raise TypeError(f'{name} must be a floating tensor, got '
                        f'{tensor.dtype}')
    if tensor.dim() != 4:
        raise ValueError(f'{name} must have 4 dimensions (B, C, H, W), got '
                         f'{tuple(tensor.shape)}')
    if tensor.shape[1] != channels:
        raise ValueError(f'{name} must have {channels} channels, got '
                         f'{tensor.shape[1]} in {tuple(tensor.shape)}')


def shift_add(y: Tensor, spec: ShiftSpec, *,
              outputs: tuple[str, ...] = ('h', 'v', 'i'),
              backend: str = 'auto') -> tuple[Tensor, ...]:
    r"""Shifts every tap of every channel to its place and adds them up.

    With ``e = N // 2`` and ``y`` read as zero outside its borders

    .. math::
        out_H[c,h,w] &= \sum_r \sum_j y[ck+j,\ h+e,\ w-p^H_r(c,j)] \\
        out_V[c,h,w] &= \sum_r \sum_j y[ck+j,\ h-p^V_r(c,j),\ w+e] \\
        out_I[c,h,w] &= \sum_r y[ck+q_r(c),\ h+e,\ w+e]

    Source: the custom operator of ShiftwiseConv (arXiv 2401.12736). Results
    and gradients are deterministic; half precision is summed in float32.

    Args:
        y (Tensor): Floating ``(B, C*k, H+N-1, W+N-1)``, any layout: the small
            convolutions with padding ``N-1``.
        spec (ShiftSpec): Sizes and shift tables.
        outputs (tuple[str]): The outputs wanted, of ``spec.outputs``.
        backend (str): ``'taichi'`` (f32, f64, f16; on CPU or the first CUDA
            device), ``'reference'`` (slices in plain PyTorch), or ``'auto'``,
            the first of these that can run.

    Returns:
        tuple[Tensor]: One ``(B, C, H, W)`` for each name in ``outputs``.

    Raises:
        TypeError: If ``y`` is not a floating tensor or ``spec`` not a spec.
        ValueError: If a shape, an output or the backend is not allowed, or the
            backend was asked for by name and cannot run (with the reason).
    """
    outputs = _checked_outputs(outputs, spec)
    _check_tensor('y', y, spec.channels * spec.num_taps)
    smallest = spec.small_kernel
    if min(y.shape[2:]) < smallest:
        raise ValueError(f'y must be at least {smallest} x {smallest} '
                         f'(H+N-1, W+N-1), got {tuple(y.shape)}')
    return _choose('backend', _BACKENDS, backend, y, spec, False)(
        y, spec, outputs)


def shiftwise_conv(x: Tensor, weight: Tensor, spec: ShiftSpec, *,
                   outputs: tuple[str, ...] = ('h', 'v', 'i'),
                   form: str = 'auto',
                   mask: Tensor | None = None) -> tuple[Tensor, ...]:
    r"""Shift-wise convolution: a large kernel out of small ones.

    ``shift_add(conv2d(x, weight, padding=N-1, groups=C))``, however it is
    computed:

    * ``'fused'``: a Taichi kernel that walks the taps of each channel,
      gradients included, without the k-fold intermediate; one for the CPU,
      one for a GPU.
    * ``'channels'``: a Taichi kernel of the CPU that runs whole strips, a
      lane a channel; without gradients, so in inference only.
    * ``'strip'``: one depthwise convolution an output with the strip that the
      shifted taps add up to, without the k-fold intermediate.
    * ``'shift'``: as written, through :func:`shift_add`.
    * ``'auto'``: the fastest of those that can run, as measured on the spot
      (:func:`set_autotune`) or by a rule fitted to a CPU; by that rule never
      ``'fused'`` on a GPU, where nothing was measured.

    With a mask the small kernels that it does not keep count as zero and
    their gradients are zero, whatever the form. ``'fused'`` does not walk
    them in either direction, so that they cost nothing; the others multiply
    with zeros. Where no kernel is left nothing runs at all. What is left of
    the lists is made anew only when the mask has changed. ``'auto'`` looks at
    the density as well, where it can be read without waiting: of masks on the
    CPU, not in compiled or traced graphs.

    Args:
        x (Tensor): Floating ``(B, C, H, W)``, any layout.
        weight (Tensor): Small kernels ``(C*k, 1, N, N)``; ``c*k + j`` is tap
            ``j`` of channel ``c``.
        spec (ShiftSpec): Sizes and shift tables.
        outputs (tuple[str]): The outputs wanted, of ``spec.outputs``.
        form (str): ``'auto'``, ``'fused'``, ``'channels'``, ``'strip'`` or
            ``'shift'``.
        mask (Tensor, optional): Which small kernels are kept, bool
            ``(C*k,)``, on any device. By default all.

    Returns:
        tuple[Tensor]: One ``(B, C, H, W)`` for each name in ``outputs``.

    Raises:
        TypeError: If a tensor is not a floating one, ``spec`` not a spec or
            ``mask`` not a bool tensor.
        ValueError: If a shape, an output or the form is not allowed, or the
            form was asked for by name and cannot run (with the reason).
    """
    case = prepared.case_of(x, weight, spec, outputs, form, mask)
    again = None if case is None else prepared.known(case)
    if again is not None:
        return again(x, weight)
    outputs = _checked_outputs(outputs, spec)
    _check_tensor('x', x, spec.channels)
    n = spec.small_kernel
    shape = (spec.channels * spec.num_taps, 1, n, n)
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        raise TypeError('weight must be a floating tensor, got '
                        f'{getattr(weight, "dtype", type(weight).__name__)}')
    if weight.shape != shape:
        raise ValueError(f'weight must have shape {shape} for {spec}, got '
                         f'{tuple(weight.shape)}')
    if not torch.is_autocast_enabled(x.device.type) \
            and weight.dtype != x.dtype:
        raise TypeError(f'weight must have the dtype of x, {x.dtype}, got '
                        f'{weight.dtype}')
    check_mask(mask, spec)
    training = torch.is_grad_enabled() and (x.requires_grad
                                            or weight.requires_grad)
    density = density_of(mask)
    if form == 'auto' and density != 0 and autotune.is_on():
        candidates = {
            name: partial(function, mask=mask)
            for name, reason, _, function in _FORMS if reason(x, spec) is None
        }
        form = autotune.choice(candidates, x, weight, spec, outputs, training,
                               mask is not None, density) or form
    function = _choose('form', _FORMS, form, x, spec, training, density)
    if density == 0:
        function = nothing
    elif case is not None and function is fused_conv:
        call = prepared_fused(x, weight, spec, outputs, mask)
        if call is not None:
            prepared.keep(case, call)
            return call(x, weight)
    return function(x, weight, spec, outputs, mask)
