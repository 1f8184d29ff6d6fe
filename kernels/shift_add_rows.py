r"""Shift-add and its gradient for the CPU: a run of a row at a time.

The sums are those of :mod:`shift_add`, in the same order, with the same
properties. A turn of the loop computes one row of every output in runs of
``RUN`` neighbours: a tap's offset is looked up once a run, and all elements
that it adds are read in one go, so what is left is near one load and one
addition an element (one output at a time costs a dozen instructions each).
"""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache

import torch

from .shift_add import ndarray_types

__all__ = ['forward_kernel', 'backward_kernel']

RUN = 8


@cache
def _runs(dtype: torch.dtype):
    """Device functions that add a run to another."""
    import taichi as ti
    acc = ndarray_types(dtype)[3]
    run = ti.types.vector(RUN, acc)

    @ti.func
    def add_part(total, source: ti.template(), row, first, length):
        """``total + source[row + first ..]``, zero outside the row."""
        result = total
        for i in ti.static(range(RUN)):
            if first + i >= 0 and first + i < length:
                result[i] += ti.cast(source[row + first + i], acc)
        return result

    @ti.func
    def add_run(total, source: ti.template(), row, first, length):
        """The same; a run that lies in the row goes without questions."""
        result = total
        if first >= 0 and first + RUN <= length:
            result = total + run([
                ti.cast(source[row + first + i], acc)
                for i in ti.static(range(RUN))
            ])
        elif first > -RUN and first < length:
            result = add_part(total, source, row, first, length)
        return result

    @ti.func
    def add_pairs(total, source: ti.template(), even: ti.template(),
                  odd: ti.template(), row, first, length):
        """The same, two elements at a time: half of the instructions."""
        result = total
        if first >= 0 and first + RUN <= length:
            pair = (row + first) >> 1
            if (row + first) & 1:
                result = total + run([
                    odd[pair + i // 2][i % 2] for i in ti.static(range(RUN))
                ])
            else:
                result = total + run([
                    even[pair + i // 2][i % 2] for i in ti.static(range(RUN))
                ])
        elif first > -RUN and first < length:
            result = add_part(total, source, row, first, length)
        return result

    @ti.func
    def add(total, source: ti.template(), even: ti.template(),
            odd: ti.template(), row, first, length):
        result = total
        if ti.static(dtype == torch.float32):
            result = add_pairs(total, source, even, odd, row, first, length)
        else:
            result = add_run(total, source, row, first, length)
        return result

    @ti.func
    def put_run(target: ti.template(), row, first, length, total):
        """Stores what lies in the row."""
        for i in ti.static(range(RUN)):
            if first + i < length:
                target[row + first + i] = total[i]

    return run, add, add_run, put_run


@cache
def forward_kernel(dtype: torch.dtype, has_h: bool, has_v: bool,
                   has_i: bool):
    """Compiles the forward kernel for one dtype and set of outputs."""
    import taichi as ti
    Data, Index, _, _ = ndarray_types(dtype)
    run, add, _, put_run = _runs(dtype)
    Pairs = ti.types.ndarray(dtype=ti.types.vector(2, ti.f32), ndim=1)

    @ti.kernel
    def shift_add(
            y: Data,  # (B, C*k, Hp, Wp)
            even: Pairs, odd: Pairs,
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
        for n in range(B * C * H):
            h = n % H
            c = (n // H) % C
            first = (n // H) * k * Hp * Wp
            for block in range((W + RUN - 1) // RUN):
                w = block * RUN
                if ti.static(has_h):
                    total = run(0)
                    for r in range(R):
                        for j in range(k):
                            total = add(
                                total, y, even, odd,
                                first + (j * Hp + h + e) * Wp,
                                w - off_h[(c * R + r) * k + j], Wp)
                    put_run(out_h, n * W, w, W, total)
                if ti.static(has_v):
                    total = run(0)
                    for r in range(R):
                        for j in range(k):
                            u = h - off_v[(c * R + r) * k + j]
                            if u >= 0 and u < Hp:
                                total = add(total, y, even, odd,
                                            first + (j * Hp + u) * Wp, w + e,
                                            Wp)
                    put_run(out_v, n * W, w, W, total)
                if ti.static(has_i):
                    total = run(0)
                    for r in range(R):
                        j = tap_i[c * R + r]
                        total = add(total, y, even, odd,
                                        first + (j * Hp + h + e) * Wp, w + e,
                                        Wp)
                    put_run(out_i, n * W, w, W, total)

    return shift_add


@cache
def backward_kernel(dtype: torch.dtype, has_h: bool, has_v: bool,
                    has_i: bool):
    """Compiles the gradient kernel for one dtype and set of outputs."""
    import taichi as ti
    Data, Index, _, _ = ndarray_types(dtype)
    run, _, add_run, put_run = _runs(dtype)

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
        for n in range(B * C * k * Hp):
            h = n % Hp - e
            j = (n // Hp) % k
            plane = n // (Hp * k)
            c = plane % C
            first = plane * H * W
            inside = h >= 0 and h < H
            for block in range((Wp + RUN - 1) // RUN):
                w = block * RUN - e
                total = run(0)
                if ti.static(has_h):
                    if inside:
                        for r in range(R):
                            total = add_run(
                                total, grad_h, first + h * W,
                                w + e + off_h[(c * R + r) * k + j], W)
                if ti.static(has_v):
                    for r in range(R):
                        u = h + e + off_v[(c * R + r) * k + j]
                        if u >= 0 and u < H:
                            total = add_run(total, grad_v, first + u * W, w,
                                            W)
                if ti.static(has_i):
                    if inside:
                        for r in range(R):
                            if tap_i[c * R + r] == j:
                                total = add_run(total, grad_i, first + h * W,
                                                w, W)
                put_run(grad_y, n * Wp, block * RUN, Wp, total)

    return shift_add_grad
