r"""Shift-add the way the published Taichi kernel does it.

One thread an element, the offsets looked up in a table at each step, tensors
indexed in four dimensions. The horizontal and the vertical output are a
launch each. The gradient is a gather as well (the published CUDA operator
scatters with atomics, which costs a CPU more).
"""
# No `from __future__ import annotations`: Taichi reads the annotations.
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from shiftwise_mm.kernels import runtime
from shiftwise_mm.ops import ShiftSpec

__all__ = ['published_taichi']


@cache
def _kernels() -> tuple:
    import taichi as ti
    Data = ti.types.ndarray(dtype=ti.f32, ndim=4)
    Pads = ti.types.ndarray(dtype=ti.i32, ndim=3)

    @ti.kernel
    def shift_horizontally(y: Data, out: Data, pads: Pads, e: ti.i32):
        for b, c, h, w in ti.ndrange(out.shape[0], out.shape[1],
                                     out.shape[2], out.shape[3]):
            total = 0.0
            for r in range(pads.shape[0]):
                for j in range(pads.shape[2]):
                    u = w - pads[r, c, j]
                    if u >= 0 and u < y.shape[3]:
                        total += y[b, c * pads.shape[2] + j, h + e, u]
            out[b, c, h, w] = total

    @ti.kernel
    def shift_vertically(y: Data, out: Data, pads: Pads, e: ti.i32):
        for b, c, h, w in ti.ndrange(out.shape[0], out.shape[1],
                                     out.shape[2], out.shape[3]):
            total = 0.0
            for r in range(pads.shape[0]):
                for j in range(pads.shape[2]):
                    u = h - pads[r, c, j]
                    if u >= 0 and u < y.shape[2]:
                        total += y[b, c * pads.shape[2] + j, u, w + e]
            out[b, c, h, w] = total

    @ti.kernel
    def gradient(grad_y: Data, grad: Data, pads: Pads, e: ti.i32,
                 horizontal: ti.i32):
        for b, n, h, w in ti.ndrange(grad_y.shape[0], grad_y.shape[1],
                                     grad_y.shape[2], grad_y.shape[3]):
            c = n // pads.shape[2]
            j = n % pads.shape[2]
            total = 0.0
            for r in range(pads.shape[0]):
                u = h - e
                v = w - e
                if horizontal == 1:
                    v = w + pads[r, c, j]
                else:
                    u = h + pads[r, c, j]
                if u >= 0 and u < grad.shape[2] and v >= 0 \
                        and v < grad.shape[3]:
                    total += grad[b, c, u, v]
            grad_y[b, n, h, w] = total

    return shift_horizontally, shift_vertically, gradient


class _Direction(torch.autograd.Function):
    """One direction of shift-add."""

    @staticmethod
    def forward(ctx, y: Tensor, pads: Tensor, edge: int,
                horizontal: bool) -> Tensor:
        ctx.save_for_backward(pads)
        ctx.shape, ctx.edge, ctx.horizontal = y.shape, edge, horizontal
        runtime.ensure(y.device)
        batch, _, height, width = y.shape
        out = y.new_empty(batch, pads.shape[1], height - 2 * edge,
                          width - 2 * edge)
        kernel = _kernels()[0 if horizontal else 1]
        kernel(y.detach().contiguous(), out, pads, edge)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor):
        pads, = ctx.saved_tensors
        runtime.ensure(grad.device)
        grad_y = grad.new_empty(ctx.shape)
        _kernels()[2](grad_y, grad.detach().contiguous(), pads, ctx.edge,
                      int(ctx.horizontal))
        return grad_y, None, None, None


def published_taichi(spec: ShiftSpec, outputs: Sequence[str],
                     size: tuple[int, int], device: torch.device):
    """A function from ``y`` (float32) to the outputs.

    Raises:
        ValueError: If Taichi cannot serve the device, with the reason.
    """
    why = runtime.reason(device)
    if why is not None:
        raise ValueError(why)
    e, first = spec.small_kernel // 2, torch.arange(spec.channels)
    pads = {name: spec.tap_offsets(name).int().contiguous().to(device)
            for name in outputs if name != 'i'}
    taps = [] if spec.identity_tap is None else [
        (first * spec.num_taps + tap).to(device) for tap in spec.identity_tap]

    def output(y: Tensor, name: str) -> Tensor:
        if name == 'i':
            inner = y[..., e:y.shape[2] - e, e:y.shape[3] - e]
            return sum(inner.index_select(1, tap) for tap in taps)
        return _Direction.apply(y, pads[name], e, name == 'h')

    return lambda y: tuple(output(y, name) for name in outputs)
