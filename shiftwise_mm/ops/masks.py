"""Masks over small kernels: what is masked counts as zero."""
from __future__ import annotations

import ctypes

import torch
from torch import Tensor
from torch._guards import active_fake_mode

from .operator import as_autocast
from .spec import ShiftSpec

__all__ = ['check_mask', 'density_of', 'has_values', 'is_plain_inference',
           'mask_bytes', 'read_mask', 'masked_weight', 'nothing']


def check_mask(mask: Tensor | None, spec: ShiftSpec) -> None:
    """Raises unless the mask is None or a bool ``(C*k,)``.

    Raises:
        TypeError: If it is no bool tensor.
        ValueError: If its shape is another one.
    """
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        raise TypeError('mask must be a bool tensor, got '
                        f'{getattr(mask, "dtype", type(mask).__name__)}')
    shape = (spec.channels * spec.num_taps, )
    if mask.shape != shape:
        raise ValueError(f'mask must have shape {shape} for {spec}, got '
                         f'{tuple(mask.shape)}')


def has_values(*tensors: Tensor) -> bool:
    """Whether values can be looked at, at once and for this call alone.

    Not off the CPU, of fake tensors, under ``torch.compile``, tracing and
    export: it would wait for a device, or be a constant in a graph.
    """
    # is_compiling comes first: compilers cannot read all of the others.
    if torch.compiler.is_compiling() or torch.compiler.is_exporting() or \
            torch.jit.is_tracing() or torch._C._len_torch_dispatch_stack() \
            and active_fake_mode() is not None:
        return False
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    return all([t.is_cpu and not wrapped(t) for t in tensors])


def is_plain_inference(*tensors: Tensor) -> bool:
    """Whether kernels that torch does not know may compute with them.

    Nobody differentiates, casts by itself, traces or counts operators, and
    they :func:`has_values`.
    """
    return not (torch.is_grad_enabled() or torch.is_autocast_enabled('cpu')
                or not has_values(*tensors)
                or torch._C._len_torch_dispatch_stack())


def mask_bytes(mask: Tensor) -> bytes | None:
    """What a mask holds, a byte a flag: the key of all that is made of it.

    Values and not the tensor with its version: what is written through
    ``.data``, as averaged models do, changes no version. It takes a
    microsecond or two, a launch a hundred.

    Returns:
        bytes | None: None unless it :func:`has_values`.
    """
    return read_mask(mask) if has_values(mask) else None


def read_mask(mask: Tensor) -> bytes:
    """What a mask holds that :func:`has_values`."""
    if mask.is_contiguous():
        return ctypes.string_at(mask.data_ptr(), mask.nbytes)
    return mask.numpy().tobytes()


def density_of(mask: Tensor | None) -> float | None:
    """Share of the taps that are kept; None where it cannot be told."""
    if mask is None:
        return None
    values = mask_bytes(mask)
    return None if values is None else values.count(1) / len(values)


def masked_weight(weight: Tensor, mask: Tensor | None) -> Tensor:
    """The small kernels ``(C*k, 1, N, N)``, zero where masked.

    Filled and not multiplied: neither a value that is not finite nor its
    gradient comes through.
    """
    if mask is None:
        return weight
    return weight.masked_fill(~mask.to(weight.device).view(-1, 1, 1, 1), 0)


def nothing(x: Tensor, weight: Tensor, spec: ShiftSpec,
            outputs: tuple[str, ...], mask: Tensor) -> tuple[Tensor, ...]:
    """Shift-wise convolution without any tap: zeros.

    The gradients are zeros as well, not None.
    """
    x, weight = as_autocast(x, weight)
    everything = torch.ones((), dtype=torch.bool, device=x.device)
    if torch.is_grad_enabled() and weight.requires_grad:
        return tuple(x.masked_fill(everything, 0) +
                     weight.masked_fill(everything, 0).sum()
                     for _ in outputs)
    if torch.is_grad_enabled() and x.requires_grad:
        return tuple(x.masked_fill(everything, 0) for _ in outputs)
    return tuple(torch.zeros_like(x) for _ in outputs)
