r"""The fused form: every output from a list of taps, without ``y``.

All repetitions that put a tap at the same place add up first (a small matrix
product, as for the strips); what is left is one ``N x N`` kernel a place, and
a Taichi kernel that walks them.
"""
from __future__ import annotations

from functools import lru_cache
from math import prod

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from shiftwise_mm.kernels import fused_gpu, fused_launch, runtime

from .spec import ShiftSpec
from .strips import placement

__all__ = ['fused_conv', 'fused_reason', 'fused_worth']

_HALF = (torch.float16, torch.bfloat16)


def _kernels(device: torch.device):
    """The kernels for tensors on ``device``: each device has its own shape."""
    return fused_launch if runtime.on_cpu(device) else fused_gpu


def fused_reason(x: Tensor, spec: ShiftSpec | None) -> str | None:
    """Why the fused kernel cannot take ``x``, or None."""
    kernels, on_cpu = _kernels(x.device), runtime.on_cpu(x.device)
    if x.dtype not in (*kernels.DTYPES, *_HALF):
        return f'it computes in float32, which is too little for {x.dtype}'
    if on_cpu and spec is not None and \
            spec.small_kernel not in fused_launch.TAPS:
        allowed = ' and '.join(map(str, fused_launch.TAPS))
        return (f'on a CPU it is made for small kernels of {allowed}, not '
                f'{spec.small_kernel}')
    # On a CPU rows are filled up.
    elements = x.numel() + on_cpu * 8 * x.shape[:-1].numel()
    if spec is not None:  # the gradients of all taps, in parts
        n = spec.small_kernel
        parts = (x.shape[:2].numel() * n * (n + 3) if on_cpu else
                 x.shape[1] * n * n * fused_gpu.WARP)
        elements = max(elements, parts * (2 * spec.num_taps + 1))
    if elements > kernels.MAX_ELEMENTS:
        return ('Taichi indexes with 32 bits: at most '
                f'{kernels.MAX_ELEMENTS} elements, got {elements}')
    if torch.jit.is_tracing() or torch.compiler.is_exporting():
        return 'a trace for others cannot hold an operator of ours'
    return (runtime.vector_reason if on_cpu else runtime.reason)(x.device)


def fused_worth(x: Tensor, training: bool) -> bool:
    """Whether the fused kernel is faster than strips, as measured on a CPU.

    A launch costs as much as a small convolution, and planes of few rows
    leave its vectors and blocks of rows half empty (``docs/performance.md``).
    Never on a GPU, where nothing was measured: there it is only taken by
    name.
    """
    smallest = 24 if training else 40
    return (runtime.on_cpu(x.device) and min(x.shape[2:]) >= smallest
            and x.numel() >= 150_000)


@lru_cache(maxsize=256)
def _taps(channels: int, outputs: str, large_kernel: int, small_kernel: int,
          device: torch.device) -> fused_launch.Taps:
    """The lists of all places of the outputs; a place is a kernel."""
    count = -(-large_kernel // small_kernel)
    entry, flipped, offset, offset_flipped, start = [], [], [], [], [0]
    first = 0
    with torch.inference_mode(False), torch.device('cpu'):
        places = (torch.arange(count) * small_kernel -
                  large_kernel // 2).flip(0)
        total = sum(1 if name == 'i' else count for name in outputs)
        for name in 'vih':
            if name not in outputs:
                start += [start[-1]] * channels
                continue
            at = (torch.tensor([-(small_kernel // 2)])
                  if name == 'i' else places)
            number = (torch.arange(channels)[:, None] * total + first +
                      torch.arange(len(at)).flip(0))
            entry.append(number.flatten())
            flipped.append(number.flip(1).flatten())
            offset.append(at.repeat(channels))
            offset_flipped.append(
                (1 - small_kernel - at).flip(0).repeat(channels))
            start += [start[-1] + len(at) * (c + 1) for c in range(channels)]
            first += len(at)
        taps = (torch.cat(entry), torch.cat(flipped),
                torch.cat(offset).int(),
                torch.cat(offset_flipped).int(),
                torch.tensor(start, dtype=torch.int32))
        return fused_launch.Taps(*(table.to(device) for table in taps))


def _taken(tensor: Tensor, dtypes: tuple[torch.dtype, ...]) -> Tensor:
    """In a dtype that the kernels take.

    Detached: to what requires a gradient Taichi gives zeros for one, and
    compiles a kernel for it.
    """
    tensor = tensor.detach()
    return (tensor if tensor.dtype in dtypes else tensor.float()).contiguous()


@torch.library.custom_op('shiftwise_mm::fused_conv', mutates_args=())
def _fused(x: Tensor, weight: Tensor, outputs: str,
           large_kernel: int) -> list[Tensor]:
    """The outputs ``'vih'`` of kernels at their places.

    ``weight`` is ``(C, P, N, N)``: for each output in order its places, the
    third dimension along the shift.
    """
    kernels = _kernels(x.device)
    taps = _taps(x.shape[1], outputs, large_kernel, weight.shape[-1],
                 x.device)
    with torch.autocast(x.device.type, enabled=False):
        out = kernels.forward(
            *(_taken(t, kernels.DTYPES) for t in (x, weight)), taps, outputs)
    return [o.to(x.dtype) for o in out]


@_fused.register_fake
def _(x, weight, outputs, large_kernel):
    return [x.new_empty(x.shape) for _ in outputs]


@torch.library.custom_op('shiftwise_mm::fused_conv_backward',
                         mutates_args=())
def _fused_backward(grads: list[Tensor], x: Tensor, weight: Tensor,
                    outputs: str, large_kernel: int, need_x: bool,
                    need_weight: bool) -> tuple[Tensor, Tensor]:
    """Its gradients; empty where not needed."""
    kernels = _kernels(x.device)
    taps = _taps(x.shape[1], outputs, large_kernel, weight.shape[-1],
                 x.device)
    with torch.autocast(x.device.type, enabled=False):
        *grads, taken_x, taken_weight = (_taken(t, kernels.DTYPES)
                                         for t in (*grads, x, weight))
        grad_x, grad_weight = kernels.backward(grads, taken_x, taken_weight,
                                               taps, outputs, need_x,
                                               need_weight)
    return grad_x.to(x.dtype), grad_weight.to(weight.dtype)


@_fused_backward.register_fake
def _(grads, x, weight, outputs, large_kernel, need_x, need_weight):
    return (x.new_empty(x.shape if need_x else 0),
            weight.new_empty(weight.shape if need_weight else 0))


def _setup_context(ctx, inputs, output):
    x, weight, ctx.outputs, ctx.large_kernel = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx, grads):
    x, weight = ctx.saved_tensors
    grads = [torch.zeros_like(x) if g is None else g for g in grads]
    need_x, need_weight = ctx.needs_input_grad[:2]
    grad_x, grad_weight = _fused_backward(grads, x, weight, ctx.outputs,
                                          ctx.large_kernel, need_x,
                                          need_weight)
    return (grad_x if need_x else None, grad_weight if need_weight else None,
            None, None)


_fused.register_autograd(_backward, setup_context=_setup_context)


@register_flop_formula(torch.ops.shiftwise_mm.fused_conv)
def _(x_shape, weight_shape, *args, **kwargs) -> int:
    """Two a multiply-add of the definition, at every place."""
    return 2 * prod(x_shape) * prod(weight_shape[1:])


@register_flop_formula(torch.ops.shiftwise_mm.fused_conv_backward)
def _(grad_shapes, x_shape, weight_shape, outputs, large_kernel, need_x,
      need_weight, **kwargs) -> int:
    return 2 * prod(x_shape) * prod(weight_shape[1:]) * (need_x + need_weight)


def fused_conv(x: Tensor, weight: Tensor, spec: ShiftSpec,
               outputs: tuple[str, ...]) -> tuple[Tensor, ...]:
    """Shift-wise convolution by the fused kernel, with gradients.

    Args:
        x (Tensor): ``(B, C, H, W)``; half precision is computed in float32.
        weight (Tensor): Small kernels ``(C*k, 1, N, N)``.
        spec (ShiftSpec): Sizes and tables.
        outputs (tuple[str]): The outputs wanted, of ``'h', 'v', 'i'``.

    Returns:
        tuple[Tensor]: One ``(B, C, H, W)`` for each name, of ``x``'s dtype.
    """
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
    names = ''.join(name for name in 'vih' if name in outputs)
    c, k, n = spec.channels, spec.num_taps, spec.small_kernel
    kernels_of = {name: weight.view(c, k, n, n) for name in names}
    if 'h' in names:
        kernels_of['h'] = kernels_of['h'].transpose(2, 3)
    placed = torch.cat([
        torch.bmm(placement(spec, name, weight),
                  kernel.reshape(c, k, n * n))
        for name, kernel in kernels_of.items()
    ], 1).view(c, -1, n, n)
    results = _fused(x, placed, names, spec.large_kernel)
    return tuple(results[names.index(name)] for name in outputs)
