r"""Shift-wise convolution without its k-fold intermediate, on the CPU.

Every output is a depthwise convolution with a list of ``N x N`` taps a
channel, tap ``t`` reading the input at ``o_t .. o_t + N - 1`` along the shift
and at ``-(N//2) .. N//2`` across it:

.. math::
    out[h, w] = \sum_t \sum_{a,n} K_t[a, n]\ x[h + o_t + a,\ w + n - N//2]

(horizontally with the two axes exchanged). Any list will do: all positions
of a strip, or those that a mask has left, which then cost what they are.

One task works on one channel of a few images. It turns the planes into rows
of *tiles*, ``TILE`` neighbours across the shift, one tile a lane: all lanes
share channel, tap and offset, so weights are scalars. Across the shift the
short convolution of :mod:`cook_toom` saves half of the products; along the
shift each tap adds to ``ROWS`` rows that stay in registers. Nothing is added
across tasks, so results do not depend on the threads.
"""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache

from .lane_ops import sums, transforms
from .lane_weights import weights
from .lanes import ROWS, layout, movers

__all__ = ['forward_kernel', 'backward_kernel', 'LISTS']

LISTS = 'vih'  # the order of the lists: two down the columns, one along rows


@cache
def forward_kernel(taps: int, lanes: int, unit: int):
    """Compiles the forward kernel.

    What is wanted is told at run time: compiling takes seconds.

    Args:
        taps (int): ``N``, 3 or 5.
        lanes (int): Vector width, 8 or 16.
        unit (int): Floats that are moved at a time, 4 or 8; divides ``W``.
    """
    import taichi as ti
    types = layout(taps, lanes, unit)
    size, pad = types.size, types.pad
    move, change, walk, kernel = (
        make(taps, lanes, unit)
        for make in (movers, transforms, sums, weights))
    area, products = taps * taps, taps * size

    @ti.kernel
    def fused_forward(
            x: types.Units,  # (B, C, H, W), as the next three
            out_v: types.Units, out_i: types.Units, out_h: types.Units,
            small: types.Floats,  # (C * k, N, N)
            source: types.Ints,  # (entries, reps), their numbers
            offset: types.Ints,  # (entries,)
            kernels: types.Floats,  # (entries, N, N), written first
            weight: types.Floats,  # (entries, N, a), written next
            start: types.Ints,  # (3, C) of the lists, and the end
            mask: types.Masks,  # (groups, 10)
            scratch: types.Vectors,  # and the same memory in other shapes
            units: types.Units, rows_v: types.ManyV, rows_h: types.ManyH,
            share: ti.i32, tasks: ti.i32, items: ti.i32, images: ti.i32,
            groups_v: ti.i32, groups_h: ti.i32, C: ti.i32, H: ti.i32,
            WU: ti.i32, reps: ti.i32, wanted: ti.i32):
        longest = ti.max((H + unit - 1) // unit, WU) * unit
        each = (items + tasks - 1) // tasks
        entries = start[3 * C]
        each_entry = (entries + tasks - 1) // tasks
        # Taichi gives a core at least 512 turns of a loop.
        for turn in range(512 * tasks):
            if (turn & 511) == 0:
                first_entry = (turn >> 9) * each_entry
                for t in range(first_entry,
                               ti.min(entries, first_entry + each_entry)):
                    kernel.gather(small, source, t * reps, reps,
                                  t >= start[2 * C], kernels, t * area)
                    kernel.to_products(kernels, t * area, False, weight,
                                       t * products)
        for turn in range(512 * tasks):
            if (turn & 511) == 0:
                task = turn >> 9
                stage = task * share * (lanes // unit)
                rows = task * share + 4 * longest
                plane = rows + unit * size
                for half in range(2 * task * each,
                                  2 * ti.min(items, task * each + each)):
                    item, d = half // 2, half % 2
                    c = item % C
                    step = C * H * WU
                    base = (item // C) * images * step + c * H * WU
                    length = H
                    first_group, last_group = 0, groups_v
                    skip = unit // 4
                    if d == 1:
                        length = WU * unit
                        first_group = groups_v
                        last_group = groups_v + groups_h
                        skip = 1
                    if wanted & (3 + d) != 0:
                        if last_group - first_group == 1:
                            skip = 0
                        blocks = (length + unit - 1) // unit
                        padded = (length + ROWS - 1) // ROWS * ROWS
                        height = padded + 2 * pad
                        result = plane + size * height
                        for g in range(first_group, last_group):
                            tile = (g - first_group) * (lanes - 2 * skip)
                            move.fetch(x, base, d, H, WU, images, step, tile,
                                       units, stage)
                            change.to_planes(rows_v, rows_h, stage, d, blocks,
                                             mask, g, scratch, rows, plane,
                                             height, length, False, 0, 0, 1,
                                             0)
                            for s in range(2 * d, 2 + d):
                                if wanted >> s & 1:
                                    walk.convolve(
                                        weight, offset, start[s * C + c],
                                        start[s * C + c + 1], scratch, plane,
                                        height, length, result, padded, 0)
                                    change.from_plane(
                                        scratch, result, padded, d, blocks,
                                        rows, rows_v, rows_h, stage)
                                    if s == 0:
                                        move.deliver(units, stage, 0, H, WU,
                                                     images, step, tile, skip,
                                                     out_v, base, 0)
                                    elif s == 1:
                                        move.deliver(units, stage, 0, H, WU,
                                                     images, step, tile, skip,
                                                     out_i, base, 0)
                                    else:
                                        move.deliver(units, stage, 1, H, WU,
                                                     images, step, tile, skip,
                                                     out_h, base, 0)

    return fused_forward


@cache
def backward_kernel(taps: int, lanes: int, unit: int):
    """Compiles the kernel of the gradients.

    The gradient of ``x`` is the same convolution with flipped taps; the one
    of the weights correlates the products, and is given for each of them.

    Args:
        taps, lanes, unit: As for :func:`forward_kernel`.
    """
    import taichi as ti
    types = layout(taps, lanes, unit)
    size, pad = types.size, types.pad
    move, change, walk, kernel = (
        make(taps, lanes, unit)
        for make in (movers, transforms, sums, weights))
    area, products = taps * taps, taps * size

    @ti.kernel
    def fused_backward(
            x: types.Units,  # (B, C, H, W), as the next four
            grad_v: types.Units, grad_i: types.Units, grad_h: types.Units,
            grad_x: types.Units,
            small: types.Floats,  # (C * k, N, N), as the next
            grad: types.Floats,
            source: types.Ints,  # (entries, reps), numbers of small kernels
            used: types.Ints,  # (C * k, uses), numbers of entries
            flipped: types.Ints,  # (entries,), as the next two
            offset_x: types.Ints, offset: types.Ints,
            kernels: types.Floats,  # (entries, N, N), written first and last
            weight: types.Floats,  # flipped: (entries, N, a), written next
            start: types.Ints,  # (3, C) of the lists, and the end
            grads: types.Floats,  # (items / C, entries, N, a)
            mask: types.Masks,  # (groups, 10)
            scratch: types.Vectors,  # and the same memory in other shapes
            units: types.Units, rows_v: types.ManyV, rows_h: types.ManyH,
            share: ti.i32, tasks: ti.i32, items: ti.i32, images: ti.i32,
            groups_v: ti.i32, groups_h: ti.i32, C: ti.i32, H: ti.i32,
            WU: ti.i32, reps: ti.i32, all_taps: ti.i32, uses: ti.i32,
            wanted: ti.i32, need_x: ti.i32, need_weight: ti.i32):
        longest = ti.max((H + unit - 1) // unit, WU) * unit
        each = (items + tasks - 1) // tasks
        entries = start[3 * C]
        each_entry = (entries + tasks - 1) // tasks
        # Taichi gives a core at least 512 turns of a loop.
        for turn in range(512 * tasks):
            if (turn & 511) == 0 and need_x:
                first_entry = (turn >> 9) * each_entry
                for t in range(first_entry,
                               ti.min(entries, first_entry + each_entry)):
                    kernel.gather(small, source, flipped[t] * reps, reps,
                                  t >= start[2 * C], kernels, t * area)
                    kernel.to_products(kernels, t * area, True, weight,
                                       t * products)
        for turn in range(512 * tasks):
            if (turn & 511) == 0:
                task = turn >> 9
                stage = task * share * (lanes // unit)
                rows = task * share + 4 * longest
                plane = rows + unit * size
                for half in range(2 * task * each,
                                  2 * ti.min(items, task * each + each)):
                    item, d = half // 2, half % 2
                    c = item % C
                    step = C * H * WU
                    base = (item // C) * images * step + c * H * WU
                    grads_at = (item // C) * entries * products
                    length = H
                    first_group, last_group = 0, groups_v
                    skip = unit // 4
                    if d == 1:
                        length = WU * unit
                        first_group = groups_v
                        last_group = groups_v + groups_h
                        skip = 1
                    if last_group - first_group == 1:
                        skip = 0
                    blocks = (length + unit - 1) // unit
                    padded = (length + ROWS - 1) // ROWS * ROWS
                    height = padded + 2 * pad
                    result = plane + size * height
                    plane_x = result + size * padded
                    spread = plane_x + size * height
                    for g in range(first_group, last_group):
                        tile = (g - first_group) * (lanes - 2 * skip)
                        lists = wanted & (3 + d)
                        if need_weight and lists != 0:
                            move.fetch(x, base, d, H, WU, images, step, tile,
                                       units, stage)
                            change.to_planes(rows_v, rows_h, stage, d, blocks,
                                             mask, g, scratch, rows, plane_x,
                                             height, length, False, 0, 0, 1,
                                             0)
                        for s in range(2 * d, 2 + d):
                            if wanted >> s & 1:
                                first = start[s * C + c]
                                last = start[s * C + c + 1]
                                if s == 0:
                                    move.fetch(grad_v, base, 0, H, WU, images,
                                               step, tile, units, stage)
                                elif s == 1:
                                    move.fetch(grad_i, base, 0, H, WU, images,
                                               step, tile, units, stage)
                                else:
                                    move.fetch(grad_h, base, 1, H, WU, images,
                                               step, tile, units, stage)
                                change.to_planes(
                                    rows_v, rows_h, stage, d, blocks, mask, g,
                                    scratch, rows, plane, height, length,
                                    True, spread, padded + 8, need_x,
                                    need_weight)
                                if need_weight:
                                    walk.correlate(
                                        offset, first, last, scratch, plane_x,
                                        height, length, spread, padded + 8,
                                        grads, grads_at, g > first_group)
                                if need_x:
                                    walk.convolve(
                                        weight, offset_x, first, last,
                                        scratch, plane, height, length,
                                        result, padded,
                                        s == 1 and wanted & 1 != 0)
                        if need_x and lists != 0:
                            change.from_plane(scratch, result, padded, d,
                                              blocks, rows, rows_v, rows_h,
                                              stage)
                            # The first direction writes, the other adds.
                            move.deliver(units, stage, d, H, WU, images, step,
                                         tile, skip, grad_x, base,
                                         d == 1 and wanted & 3 != 0)
        for turn in range(512 * tasks):
            if (turn & 511) == 0 and need_weight:
                first_entry = (turn >> 9) * each_entry
                for t in range(first_entry,
                               ti.min(entries, first_entry + each_entry)):
                    kernel.from_products(grads, t * products, items // C,
                                         entries * products, kernels,
                                         t * area)
        each_tap = (all_taps + tasks - 1) // tasks
        for turn in range(512 * tasks):
            if (turn & 511) == 0 and need_weight:
                first_tap = (turn >> 9) * each_tap
                for j in range(first_tap,
                               ti.min(all_taps, first_tap + each_tap)):
                    kernel.collect(kernels, used, j * uses, uses,
                                   start[2 * C], grad, j * area)

    return fused_backward
