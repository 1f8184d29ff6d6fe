r"""The fused form: every output from a list of taps, without ``y``.

A Taichi kernel adds up all repetitions that put a tap at the same place; what
is left is one ``N x N`` kernel a place, and it walks them. Masked taps are in
no list (:mod:`.tap_lists`).
"""
from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils.flop_counter import register_flop_formula

from shiftwise_mm.kernels import fused_gpu, fused_launch, runtime
from shiftwise_mm.kernels.lanes import TILE

from .channels import channels_reason, channels_worth
from .operator import as_autocast, operator
from .spec import ShiftSpec
from .tap_lists import all_taps, kept_taps

__all__ = ['fused_conv', 'fused_reason', 'fused_worth', 'prepared_fused']

_HALF = (torch.float16, torch.bfloat16)


def _kernels(device: torch.device):
    """The kernels for tensors on ``device``: each device has its own shape."""
    return fused_launch if runtime.on_cpu(device) else fused_gpu


def fused_reason(x: Tensor, spec: ShiftSpec | None) -> str | None:
    """Why the fused kernel cannot take ``x``, or None."""
    if torch.jit.is_tracing() or torch.compiler.is_exporting():
        return 'a trace for others cannot hold an operator of ours'
    kernels, on_cpu = _kernels(x.device), runtime.on_cpu(x.device)
    if x.dtype not in (*kernels.DTYPES, *_HALF):
        return f'it computes in float32, which is too little for {x.dtype}'
    if on_cpu and spec is not None and \
            spec.small_kernel not in fused_launch.TAPS:
        allowed = ' and '.join(map(str, fused_launch.TAPS))
        return (f'on a CPU it is made for small kernels of {allowed}, not '
                f'{spec.small_kernel}')
    side = max(x.shape[2:], default=0)
    if on_cpu and side > fused_launch.MAX_SIDE:
        return ('on a CPU it takes sides of at most '
                f'{fused_launch.MAX_SIDE}, not {side}')
    # On a CPU rows are filled up.
    elements = x.numel() + on_cpu * 8 * x.shape[:-1].numel()
    if spec is not None:  # the gradients of all taps, in parts
        n = spec.small_kernel
        parts = x.shape[1] * n * (x.shape[0] * (n + 3) + n if on_cpu else
                                  n * fused_gpu.WARP)
        elements = max(elements, parts * (2 * spec.num_taps + 1))
    if elements > kernels.MAX_ELEMENTS:
        return ('Taichi indexes with 32 bits: at most '
                f'{kernels.MAX_ELEMENTS} elements, got {elements}')
    return (runtime.vector_reason if on_cpu else runtime.reason)(x.device)


def fused_worth(x: Tensor, training: bool,
                density: float | None = None) -> bool:
    """Whether the fused kernel is faster than strips, as measured on a CPU.

    A launch costs as much as a small convolution, and planes of few rows
    leave its vectors and blocks of rows half empty (``docs/performance.md``).
    With a mask it walks less, and strips cost what they did; their gradients
    cost more than its own. In inference form ``channels`` is faster where
    most taps are kept. Never on a GPU, where nothing was measured: there it
    is only taken by name.
    """
    if torch.jit.is_tracing() or torch.compiler.is_exporting():
        return False  # whose sizes may be free
    if density is None:
        density = 1.
    if density > .55 and channels_reason(x, None) is None and \
            channels_worth(x, training):
        return False
    rows = 12 * density + (2 if training else 16)
    return (runtime.on_cpu(x.device) and min(x.shape[2:]) >= rows
            and x.numel() >= max(110_000 * density, 50_000))


def _taken(tensor: Tensor, dtypes: tuple[torch.dtype, ...]) -> Tensor:
    """In a dtype that the kernels take.

    Detached: to what requires a gradient Taichi gives zeros for one, and
    compiles a kernel for it.
    """
    tensor = tensor.detach()
    return (tensor if tensor.dtype in dtypes else tensor.float()).contiguous()


def _forward(x: Tensor, weight: Tensor, taps: list[Tensor], outputs: str,
           mask: Tensor | None, key: str) -> list[Tensor]:
    """The outputs ``'vih'`` of small kernels ``(C*k, 1, N, N)``.

    ``taps`` are all lists of :class:`~shiftwise_mm.kernels.fused_launch.Taps`
    and ``key`` tells them from others. What the mask leaves of them is looked
    up in here, where masks have values: for compilers it has no size.
    """
    kernels, taps = _kernels(x.device), kept_taps(taps, mask, key)
    if not taps.offset.numel():
        return [torch.zeros_like(x, memory_format=torch.contiguous_format)
                for _ in outputs]
    out = kernels.forward(*(_taken(t, kernels.DTYPES) for t in (x, weight)),
                          taps, outputs)
    return [o.to(x.dtype) for o in out]


_fused = operator('fused_conv', _forward)


@torch.library.register_fake('shiftwise_mm::fused_conv')
def _(x, weight, taps, outputs, mask, key):
    return [x.new_empty(x.shape) for _ in outputs]


def _gradients(grads: list[Tensor], x: Tensor, weight: Tensor,
               taps: list[Tensor], outputs: str, need_x: bool,
               need_weight: bool, mask: Tensor | None,
               key: str) -> tuple[Tensor, Tensor]:
    """Its gradients; empty where not needed."""
    kernels, taps = _kernels(x.device), kept_taps(taps, mask, key)
    if not taps.offset.numel():
        return (x.new_zeros(x.shape if need_x else 0),
                weight.new_zeros(weight.shape if need_weight else 0))
    *grads, taken_x, taken_weight = (_taken(t, kernels.DTYPES)
                                     for t in (*grads, x, weight))
    grad_x, grad_weight = kernels.backward(
        grads, taken_x, taken_weight, taps, outputs, need_x, need_weight)
    return grad_x.to(x.dtype), grad_weight.to(weight.dtype)


_fused_backward = operator('fused_conv_backward', _gradients)


@torch.library.register_fake('shiftwise_mm::fused_conv_backward')
def _(grads, x, weight, taps, outputs, need_x, need_weight, mask, key):
    return (x.new_empty(x.shape if need_x else 0),
            weight.new_empty(weight.shape if need_weight else 0))


def _setup_context(ctx, inputs, output):
    x, weight, taps, ctx.outputs, mask, ctx.key = inputs
    ctx.save_for_backward(x, weight, mask, *taps)


def _backward(ctx, grads):
    x, weight, mask, *taps = ctx.saved_tensors
    grads = [torch.zeros_like(x) if g is None else g for g in grads]
    need_x, need_weight = ctx.needs_input_grad[:2]
    grad_x, grad_weight = _fused_backward(
        grads, x, weight, taps, ctx.outputs, need_x, need_weight, mask,
        ctx.key)
    return (grad_x if need_x else None, grad_weight if need_weight else None,
            [None] * len(taps), None, None, None)


torch.library.register_autograd('shiftwise_mm::fused_conv', _backward,
                                setup_context=_setup_context)


@register_flop_formula(torch.ops.shiftwise_mm.fused_conv, get_raw=True)
def _flops(x, weight, taps, outputs, mask, key, **kwargs) -> int:
    """Two a multiply-add of the definition, of every entry at every place.

    Fake tensors have no masks: all entries count.
    """
    if mask is not None and not isinstance(mask, FakeTensor):
        taps = kept_taps(taps, mask, key)
    return 2 * x.numel() * len(taps[0]) * prod(weight.shape[2:]) // x.shape[1]


@register_flop_formula(torch.ops.shiftwise_mm.fused_conv_backward,
                       get_raw=True)
def _(grads, x, weight, taps, outputs, need_x, need_weight, mask, key,
      **kwargs) -> int:
    return (need_x + need_weight) * _flops(x, weight, taps, outputs, mask,
                                           key)


def fused_conv(x: Tensor, weight: Tensor, spec: ShiftSpec,
               outputs: tuple[str, ...],
               mask: Tensor | None = None) -> tuple[Tensor, ...]:
    """Shift-wise convolution by the fused kernel, with gradients.

    Args:
        x (Tensor): ``(B, C, H, W)``; half precision is computed in float32.
        weight (Tensor): Small kernels ``(C*k, 1, N, N)``.
        spec (ShiftSpec): Sizes and tables.
        outputs (tuple[str]): The outputs wanted, of ``'h', 'v', 'i'``.
        mask (Tensor, optional): Which small kernels are kept, bool
            ``(C*k,)``: the others are not walked.

    Returns:
        tuple[Tensor]: One ``(B, C, H, W)`` for each name, of ``x``'s dtype.
    """
    x, weight = as_autocast(x, weight)
    taps, names, key = _lists(x, spec, outputs)
    results = _fused(x, weight, taps, names, mask,
                     '' if mask is None else key)
    return tuple(results[names.index(name)] for name in outputs)


def _lists(x: Tensor, spec: ShiftSpec,
           outputs: tuple[str, ...]) -> tuple[list[Tensor], str, str]:
    """All lists, the outputs' names as kernels take them, and what tells
    these lists from others.
    """
    names = ''.join(name for name in 'vih' if name in outputs)
    return (all_taps(spec, names, x.device), names,
            f'{names} of {spec.digest}')


def prepared_fused(x: Tensor, weight: Tensor, spec: ShiftSpec,
                   outputs: tuple[str, ...], mask: Tensor | None
                   ) -> Callable[[Tensor, Tensor], tuple[Tensor, ...]] | None:
    """:func:`fused_conv` for other tensors of these shapes, without gradients.

    Args:
        x, weight, spec, outputs, mask: As for :func:`fused_conv`, f32 on the
            CPU.

    Returns:
        Callable, optional: Of ``x`` and ``weight``, contiguous, ``x`` aligned
        to 16 bytes. None where rows have to be filled up or nothing is left.
    """
    taps, names, key = _lists(x, spec, outputs)
    taps = kept_taps(taps, mask, key)
    if x.shape[-1] % TILE or not x.numel() or not taps.offset.numel():
        return None
    launch = fused_launch.Prepared(x, weight, taps, names)
    order = [names.index(name) for name in outputs]

    def call(x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        results = launch(x, weight)
        return tuple([results[i] for i in order])

    return call
