r"""The shift-add operator and its gradient, both as gathers.

One kernel launch serves all outputs. Every element of a result is summed by
one thread in a fixed order, so both directions are deterministic, need no
atomics and write every element they own. ``f32`` and ``f64`` accumulate in
their own type, ``f16`` in ``f32``.

The outputs are the ones of :func:`shiftwise_mm.ops.shift_add`:

.. math::
    out_H[c,h,w] &= \sum_r \sum_j y[ck+j,\ h+e,\ w-p^H_r(c,j)] \\
    out_V[c,h,w] &= \sum_r \sum_j y[ck+j,\ h-p^V_r(c,j),\ w+e] \\
    out_I[c,h,w] &= \sum_r y[ck+q_r(c),\ h+e,\ w+e]
"""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache, partial

import torch
from torch import Tensor

from . import openmp, runtime

__all__ = ['DTYPES', 'ndarray_types', 'forward', 'backward']

DTYPES = (torch.float32, torch.float64, torch.float16)
# Taichi indexes with 32 bits, and a GPU's threads step past the end.
MAX_ELEMENTS = 2**31 - 2**24


@cache
def ndarray_types(dtype: torch.dtype):
    """Taichi's types of data and tables, of an element and of a sum."""
    import taichi as ti
    data, accumulator = {
        torch.float32: (ti.f32, ti.f32),
        torch.float64: (ti.f64, ti.f64),
        torch.float16: (ti.f16, ti.f32),
    }[dtype]
    return (ti.types.ndarray(dtype=data, ndim=1),
            ti.types.ndarray(dtype=ti.i32, ndim=1), data, accumulator)


@cache
def _forward_kernel(dtype: torch.dtype, has_h: bool, has_v: bool,
                    has_i: bool):
    """Compiles the forward kernel for one dtype and set of outputs."""
    import taichi as ti
    Data, Index, data, acc = ndarray_types(dtype)

    @ti.kernel
    def shift_add(
            y: Data,  # (B, C*k, Hp, Wp)
            out_h: Data,  # (B, C, H, W), as the next two
            out_v: Data,
            out_i: Data,
            off_h: Index,  # (C, R, k)
            off_v: Index,  # (C, R, k)
            tap_i: Index,  # (C, R)
            B: ti.i32, C: ti.i32, k: ti.i32, R: ti.i32, H: ti.i32,
            W: ti.i32, e: ti.i32):
        Hp = H + 2 * e
        Wp = W + 2 * e
        for n in range(B * C * H * W):
            w = n % W
            h = (n // W) % H
            plane = n // (W * H)
            c = plane % C
            first = plane * k * Hp * Wp
            row = first + (h + e) * Wp
            if ti.static(has_h):
                total = ti.cast(0, acc)
                for r in range(R):
                    for j in range(k):
                        u = w - off_h[(c * R + r) * k + j]
                        if u >= 0 and u < Wp:
                            total += ti.cast(y[row + j * Hp * Wp + u], acc)
                out_h[n] = ti.cast(total, data)
            if ti.static(has_v):
                total = ti.cast(0, acc)
                for r in range(R):
                    for j in range(k):
                        u = h - off_v[(c * R + r) * k + j]
                        if u >= 0 and u < Hp:
                            total += ti.cast(
                                y[first + (j * Hp + u) * Wp + w + e], acc)
                out_v[n] = ti.cast(total, data)
            if ti.static(has_i):
                total = ti.cast(0, acc)
                for r in range(R):
                    total += ti.cast(
                        y[row + tap_i[c * R + r] * Hp * Wp + w + e], acc)
                out_i[n] = ti.cast(total, data)

    return shift_add


@cache
def _backward_kernel(dtype: torch.dtype, has_h: bool, has_v: bool,
                     has_i: bool):
    """Compiles the gradient kernel for one dtype and set of outputs."""
    import taichi as ti
    Data, Index, data, acc = ndarray_types(dtype)

    @ti.kernel
    def shift_add_grad(
            grad_y: Data,  # (B, C*k, Hp, Wp)
            grad_h: Data,  # (B, C, H, W), as the next two
            grad_v: Data,
            grad_i: Data,
            off_h: Index,  # (C, R, k)
            off_v: Index,  # (C, R, k)
            tap_i: Index,  # (C, R)
            B: ti.i32, C: ti.i32, k: ti.i32, R: ti.i32, H: ti.i32,
            W: ti.i32, e: ti.i32):
        Hp = H + 2 * e
        Wp = W + 2 * e
        for n in range(B * C * k * Hp * Wp):
            w = n % Wp - e
            h = (n // Wp) % Hp - e
            tap = n // (Wp * Hp)
            j = tap % k
            plane = tap // k
            c = plane % C
            first = plane * H * W
            inside_h = h >= 0 and h < H
            inside_w = w >= 0 and w < W
            total = ti.cast(0, acc)
            if ti.static(has_h):
                if inside_h:
                    for r in range(R):
                        u = w + e + off_h[(c * R + r) * k + j]
                        if u >= 0 and u < W:
                            total += ti.cast(grad_h[first + h * W + u], acc)
            if ti.static(has_v):
                if inside_w:
                    for r in range(R):
                        u = h + e + off_v[(c * R + r) * k + j]
                        if u >= 0 and u < H:
                            total += ti.cast(grad_v[first + u * W + w], acc)
            if ti.static(has_i):
                if inside_h and inside_w:
                    for r in range(R):
                        if tap_i[c * R + r] == j:
                            total += ti.cast(grad_i[first + h * W + w], acc)
            grad_y[n] = ti.cast(total, data)

    return shift_add_grad


def _pairs(y: Tensor) -> tuple[Tensor, Tensor]:
    """The elements two at a time, from the first and from the second."""
    flat = y.view(-1)
    if y.dtype != torch.float32 or flat.numel() < 3:  # never read
        flat = flat.new_zeros(3, dtype=torch.float32)
    count = flat.numel()
    return (flat[:count // 2 * 2].view(-1, 2),
            flat[1:1 + (count - 1) // 2 * 2].view(-1, 2))


def _launch(direction: str, first: Tensor, others: dict[str, Tensor],
            tables: dict[str, Tensor], sizes: tuple[int, ...]) -> None:
    """Runs a kernel for the outputs named in ``others``.

    On the CPU a thread computes runs of a row, on a GPU one output.
    """
    from . import shift_add_rows as rows
    with runtime.launching(first.device):
        on_cpu = runtime.on_cpu(first.device)
        forward = direction == 'forward'
        if on_cpu:
            factory = rows.forward_kernel if forward else rows.backward_kernel
        else:
            factory = _forward_kernel if forward else _backward_kernel
        kernel = factory(first.dtype, *(name in others for name in 'hvi'))
        # A kernel compiled without an output still has its argument.
        spare = first.new_zeros(1)
        run = partial(openmp.alone, kernel) if on_cpu else kernel
        run(first.view(-1), *(_pairs(first) if on_cpu and forward else ()),
            *(others.get(name, spare).view(-1) for name in 'hvi'),
            tables['h'], tables['v'], tables['i'], *sizes)


def forward(y: Tensor, names: tuple[str, ...], tables: dict[str, Tensor],
            num_taps: int, extra: int) -> tuple[Tensor, ...]:
    """Shift-add.

    Args:
        y (Tensor): ``(B, C*k, H+2e, W+2e)``, contiguous, one of
            :data:`DTYPES`, without grad.
        names (tuple[str]): The outputs wanted, of ``'h', 'v', 'i'``.
        tables (dict): int32 tensors on the device of ``y``, flattened from
            ``(C, R, k)`` for ``'h'`` and ``'v'``, ``(C, R)`` for ``'i'``.
        num_taps (int): ``k``.
        extra (int): ``e = N // 2``.

    Returns:
        tuple[Tensor]: One ``(B, C, H, W)`` for each name.
    """
    B, Ck, Hp, Wp = y.shape
    C, H, W = Ck // num_taps, Hp - 2 * extra, Wp - 2 * extra
    out = {name: y.new_empty(B, C, H, W) for name in names}
    num_reps = tables['h'].numel() // Ck
    if out and B:
        _launch('forward', y, out, tables,
                (B, C, num_taps, num_reps, H, W, extra))
    return tuple(out[name] for name in names)


def backward(grads: dict[str, Tensor], tables: dict[str, Tensor],
             num_taps: int, extra: int) -> Tensor:
    """Gradient of :func:`forward` with respect to ``y``.

    Args:
        grads (dict): For one or more of ``'h', 'v', 'i'`` the gradient of
            that output: ``(B, C, H, W)``, contiguous, without grad.
        tables, num_taps, extra: As for :func:`forward`.

    Returns:
        Tensor: ``(B, C*k, H+2e, W+2e)``.
    """
    some = next(iter(grads.values()))
    B, C, H, W = some.shape
    num_reps = tables['h'].numel() // (C * num_taps)
    grad_y = some.new_empty(B, C * num_taps, H + 2 * extra, W + 2 * extra)
    if B:
        _launch('backward', grad_y, grads, tables,
                (B, C, num_taps, num_reps, H, W, extra))
    return grad_y
