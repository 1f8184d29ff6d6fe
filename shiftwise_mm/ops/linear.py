r"""Matrix products of float32 on CPUs, by the faster of two libraries.

torch gives the product of a linear layer to MKL, which on some CPUs leaves
half of the vector width unused (AMD's with AVX-512), while oneDNN, which
``torch.compile`` uses for the same layer, does not. Both are in torch; this is
the way to oneDNN without compiling, with gradients. With AVX2 alone MKL is
faster, with Intel's AVX-512 where no bias follows (``docs/performance.md``).
"""
from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from shiftwise_mm.kernels.capability import (
    has_512_bit_units,
    has_avx2_only,
    has_avx512,
    has_zen5_vectors,
)

from .operator import operator

__all__ = ['linear', 'linear_onto', 'inference_product',
           'inference_linear_onto', 'product', 'product_over_rows',
           'onednn_takes', 'stored_for_inference']


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor | None,
               gelu: bool) -> Tensor:
    """oneDNN's product with what follows it, in one pass."""
    return torch.ops.mkldnn._linear_pointwise(
        x, weight, bias, 'gelu' if gelu else 'none', [], 'none')


_linear = operator('linear', _pointwise)


@torch.library.register_fake('shiftwise_mm::linear')
def _(x, weight, bias, gelu):
    return x.new_empty(*x.shape[:-1], weight.shape[0])


@register_flop_formula(torch.ops.shiftwise_mm.linear)
def _(x_shape, weight_shape, *args, **kwargs) -> int:
    return 2 * prod(x_shape) * weight_shape[0]


def _setup_context(ctx, inputs, output):
    x, weight, bias, gelu = inputs
    if gelu:
        raise NotImplementedError('linear with gelu=True has no gradient')
    ctx.save_for_backward(x, weight)


def _backward(ctx, grad):
    x, weight = ctx.saved_tensors
    grads = [None] * 4
    if ctx.needs_input_grad[0]:
        grads[0] = product(grad, weight.t())
    rows = grad.reshape(-1, grad.shape[-1])
    if ctx.needs_input_grad[1]:
        grads[1] = product_over_rows(rows, x.reshape(-1, x.shape[-1]))
    if ctx.needs_input_grad[2]:
        grads[2] = rows.sum(0)
    return tuple(grads)


torch.library.register_autograd('shiftwise_mm::linear', _backward,
                                setup_context=_setup_context)


def _pointwise_onto(base: Tensor, x: Tensor, weight: Tensor,
                    bias: Tensor) -> Tensor:
    """oneDNN's product with a sum, in one pass."""
    return torch.ops.mkldnn._linear_pointwise.binary(x, base, weight, bias,
                                                     'add')


_linear_onto = operator('linear_onto', _pointwise_onto)


@torch.library.register_fake('shiftwise_mm::linear_onto')
def _(base, x, weight, bias):
    return torch.empty_like(base)


@register_flop_formula(torch.ops.shiftwise_mm.linear_onto)
def _(base_shape, x_shape, weight_shape, *args, **kwargs) -> int:
    return 2 * prod(x_shape) * weight_shape[0]


def onednn_takes(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN's own operators are to be had for these tensors, here."""
    # Those want an operator of torch's own.
    if torch.jit.is_tracing() or torch.compiler.is_compiling() or \
            torch.compiler.is_exporting():
        return False
    return (x.device.type == 'cpu' and x.numel() > 0
            and x.dtype == weight.dtype == torch.float32
            and torch.backends.mkldnn.is_available()
            and torch.backends.mkldnn.enabled
            and hasattr(torch.ops.mkldnn, '_linear_pointwise')
            and not torch.is_autocast_enabled('cpu'))


def product(x: Tensor, weight: Tensor) -> Tensor:
    r""":math:`x W^T` of any strides, by the faster library as well.

    That is MKL with Intel's AVX-512 too, where no bias follows: it would copy
    that first, and add to it.
    """
    if onednn_takes(x, weight) and not _mkl_multiplies():
        return _linear(x, weight, None, False)
    return F.linear(x, weight)


def _mkl_multiplies() -> bool:
    return has_avx2_only() or has_512_bit_units() and not has_zen5_vectors()


def product_over_rows(a: Tensor, b: Tensor) -> Tensor:
    r""":math:`A^T B`, as a linear layer's weight gradient is.

    By MKL, but where it leaves half of the CPU's vectors unused: oneDNN's
    product copies what comes first. MKL is faster with the wider first, which
    pays for a transposed result where the rows are many.

    Args:
        a, b (Tensor): Floating ``(rows, P)`` and ``(rows, Q)``.

    Returns:
        Tensor: ``(P, Q)``, of any strides.
    """
    wider = a.shape[1] >= b.shape[1]
    if onednn_takes(a, b) and has_zen5_vectors():
        return (_linear(b.t(), a.t(), None, False).t() if wider
                else _linear(a.t(), b.t(), None, False))
    turned = not wider and len(a) > 8 * b.shape[1]
    return (b.t() @ a).t() if turned else a.t() @ b


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *,
           gelu: bool = False) -> Tensor:
    r"""Linear layer :math:`x W^T + b`, then GELU if wanted.

    By oneDNN for float32 on CPUs, but for those with AVX2 alone; else by
    :func:`torch.nn.functional.linear`.

    Args:
        x (Tensor): Floating ``(..., C_in)``.
        weight (Tensor): ``(C_out, C_in)``.
        bias (Tensor, optional): ``(C_out,)``.
        gelu (bool): Whether :math:`\mathrm{GELU}` (exact) follows. Defaults
            to False.

    Returns:
        Tensor: ``(..., C_out)``.
    """
    if not onednn_takes(x, weight):
        out = F.linear(x, weight, bias)
        return F.gelu(out) if gelu else out
    needs = torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (x, weight, bias))
    if has_avx2_only():
        out = F.linear(x, weight, bias)
        if not gelu:
            return out
        return F.gelu(out) if needs else torch.ops.aten.gelu_(out)
    if gelu and needs:
        return F.gelu(_linear(x, weight, bias, False))
    return _linear(x, weight, bias, gelu)


def linear_onto(base: Tensor, x: Tensor, weight: Tensor,
                bias: Tensor) -> Tensor:
    r"""A linear layer added to something, :math:`base + x W^T + b`.

    In inference on CPUs the sum is taken with the product, where it is
    contiguous float32; after it, it would read and write all of it once more.

    Args:
        base (Tensor): Floating ``(..., C_out)``; it is left as it is.
        x (Tensor): ``(..., C_in)``.
        weight (Tensor): ``(C_out, C_in)``.
        bias (Tensor): ``(C_out,)``.

    Returns:
        Tensor: ``(..., C_out)``.
    """
    if torch.is_grad_enabled() or not base.is_contiguous() or \
            not onednn_takes(x, weight):
        return base + linear(x, weight, bias)
    if not has_avx2_only():
        return _linear_onto(base, x, weight, bias)
    return _added_onto(base, x, weight, bias)


def _added_onto(base: Tensor, x: Tensor, weight: Tensor,
                bias: Tensor) -> Tensor:
    """MKL's product with a sum."""
    out = base + bias
    rows = out.view(-1, out.shape[-1])
    torch.addmm(rows, x.reshape(-1, x.shape[-1]), weight.t(), out=rows)
    return out


def inference_product(x: Tensor, weight: Tensor) -> Tensor:
    """:func:`product` where nobody looks into a call, and oneDNN takes it."""
    if _mkl_multiplies():
        return F.linear(x, weight)
    return _pointwise(x, weight, None, False)


def inference_linear_onto(base: Tensor, x: Tensor, weight: Tensor,
                          bias: Tensor) -> Tensor:
    """:func:`linear_onto`, likewise, of a contiguous ``base``."""
    if has_avx2_only():
        return _added_onto(base, x, weight, bias)
    return _pointwise_onto(base, x, weight, bias)


def stored_for_inference(weight: Tensor) -> Tensor:
    """A linear layer's weight in the memory order that its library reads.

    With AVX-512 oneDNN takes one output a column as it is, and copies one an
    output a row in each call; MKL takes either.

    Args:
        weight (Tensor): ``(C_out, C_in)``.

    Returns:
        Tensor: The same values, ``weight`` itself or a copy.
    """
    if weight.device.type == 'cpu' and has_avx512():
        return weight.t().contiguous().t()
    return weight
