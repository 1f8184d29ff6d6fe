r"""Shift-wise convolution without its k-fold intermediate, on the CPU.

Every output is a depthwise convolution with a list of ``N x N`` taps a
channel, tap ``t`` reading the input at ``o_t .. o_t + N - 1`` along the shift
and at ``-(N//2) .. N//2`` across it:

.. math::
    out[h, w] = \sum_t \sum_{a,n} K_t[a, n]\ x[h + o_t + a,\ w + n - N//2]

(horizontally with the two axes exchanged). Any list will do: all positions
of a strip, or those that a mask has left, which then cost what they are.

One task works on the images of a few channels. It turns the planes into rows
of *tiles*, ``TILE`` neighbours across the shift, one tile a lane: all lanes
share channel, tap and offset, so weights are scalars. Across the shift the
short convolution of :mod:`cook_toom` saves half of the products; along the
shift each tap adds to ``ROWS`` rows that stay in registers. Nothing is added
across tasks, so results do not depend on the threads.

Taichi takes some microseconds for each argument: numbers come in ``sizes``
(in the order of :data:`SIZES`) and the lists in one ``table``.
"""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache

from .lane_sums import sums
from .lane_transforms import transforms
from .lane_weights import weights
from .lanes import ROWS, layout, movers

__all__ = ['forward_kernel', 'backward_kernel', 'LISTS', 'SIZES']

LISTS = 'vih'  # the order of the lists: two down the columns, one along rows
SIZES = ('share', 'floats', 'items', 'parts', 'images', 'groups_v',
         'groups_h', 'channels', 'height', 'units', 'reps', 'uses', 'taps',
         'wanted', 'need_x', 'need_weight')


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
    products = taps * size

    @ti.kernel
    def fused_forward(
            x: types.Units,  # (B, C, H, W), as the next three
            out_v: types.Units, out_i: types.Units, out_h: types.Units,
            small: types.Floats,  # (C * k, N, N)
            table: types.Ints,  # start, offset and source of Taps
            mask: types.Masks,  # (groups, MASKS)
            sizes: types.Ints,
            scratch: types.Vectors,  # and the same memory in other shapes
            units: types.Units, rows_v: types.ManyV, rows_h: types.ManyH,
            floats: types.Floats, tasks: ti.i32):
        # Taichi gives a core at least 512 turns of a loop.
        for turn in range(512 * tasks):
            if (turn & 511) == 0:
                task = turn >> 9
                share, items, parts = sizes[0], sizes[2], sizes[3]
                images, groups_v, groups_h = sizes[4], sizes[5], sizes[6]
                C, H, WU, reps = sizes[7], sizes[8], sizes[9], sizes[10]
                wanted = sizes[13]
                offset = 3 * C + 1
                source = offset + table[3 * C]
                each = (items + tasks - 1) // tasks
                longest = ti.max((H + unit - 1) // unit, WU) * unit
                stage = task * share * (lanes // unit)
                edge = stage + 4 * longest * (lanes // unit)
                rows = (task * share + 4 * longest +
                        2 * longest * unit // lanes)
                plane = rows + 4 * unit
                weight = ((task + 1) * share) * lanes - sizes[1]
                now, cleared = -1, 0
                for half in range(2 * task * each,
                                  2 * ti.min(items, task * each + each)):
                    item, d = half // 2, half % 2
                    c = item // parts
                    step = C * H * WU
                    base = item % parts * images * step + c * H * WU
                    if c != now:
                        now = c
                        kernel.make(small, table, c, C, reps, source, -1,
                                    floats, weight, False)
                    length = H
                    first_group, last_group = 0, groups_v
                    if d == 1:
                        length = WU * unit
                        first_group = groups_v
                        last_group = groups_v + groups_h
                    # Without any tap in a direction a channel is zeros.
                    down = (table[c + 1] - table[c] +
                            table[C + c + 1] - table[C + c])
                    some = down
                    if d == 1:
                        some = table[2 * C + c + 1] - table[2 * C + c]
                    if wanted & (3 + d) != 0:
                        blocks = (length + unit - 1) // unit
                        padded = (length + ROWS - 1) // ROWS * ROWS
                        height = padded + 2 * pad
                        result = plane + size * height
                        for g in range(first_group, last_group):
                            tile = (g - first_group) * lanes
                            if some > 0:
                                move.fetch(x, base, d, H, WU, images, step,
                                           tile, units, stage, edge)
                                change.to_planes(
                                    rows_v, rows_h, stage, d, blocks, mask, g,
                                    scratch, rows, plane, height, length,
                                    floats, edge * unit, g > first_group,
                                    g < last_group - 1, False, 0, 0, 1, 0,
                                    cleared != length)
                                cleared = length
                            at = weight + d * down * products
                            for s in range(2 * d, 2 + d):
                                first = table[s * C + c]
                                last = table[s * C + c + 1]
                                if wanted >> s & 1:
                                    walk.convolve(
                                        floats, at, table, offset, first,
                                        last, scratch, plane, height, length,
                                        result, padded, 0)
                                    change.from_plane(
                                        scratch, result, padded, d, blocks,
                                        rows, rows_v, rows_h, stage)
                                    if s == 0:
                                        move.deliver(units, stage, 0, H, WU,
                                                     images, step, tile, out_v,
                                                     base, 0)
                                    elif s == 1:
                                        move.deliver(units, stage, 0, H, WU,
                                                     images, step, tile, out_i,
                                                     base, 0)
                                    else:
                                        move.deliver(units, stage, 1, H, WU,
                                                     images, step, tile, out_h,
                                                     base, 0)
                                at += (last - first) * products

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
            table: types.Ints,  # all of Taps
            grads: types.Floats,  # (parts, entries, N, a), (entries, N, N)
            mask: types.Masks,  # (groups, MASKS)
            sizes: types.Ints,
            scratch: types.Vectors,  # and the same memory in other shapes
            units: types.Units, rows_v: types.ManyV, rows_h: types.ManyH,
            floats: types.Floats, tasks: ti.i32):
        # Taichi gives a core at least 512 turns of a loop.
        for turn in range(512 * tasks):
            if (turn & 511) == 0:
                task = turn >> 9
                share, items, parts = sizes[0], sizes[2], sizes[3]
                images, groups_v, groups_h = sizes[4], sizes[5], sizes[6]
                C, H, WU, reps = sizes[7], sizes[8], sizes[9], sizes[10]
                wanted, need_x, need_weight = sizes[13], sizes[14], sizes[15]
                entries = table[3 * C]
                offset = 3 * C + 1
                source = offset + entries
                flipped = source + entries * reps
                offset_x = flipped + entries
                each = (items + tasks - 1) // tasks
                longest = ti.max((H + unit - 1) // unit, WU) * unit
                stage = task * share * (lanes // unit)
                edge = stage + 4 * longest * (lanes // unit)
                rows = (task * share + 4 * longest +
                        2 * longest * unit // lanes)
                plane = rows + 4 * unit
                weight = ((task + 1) * share) * lanes - sizes[1]
                now, cleared, cleared_x = -1, 0, 0
                for half in range(2 * task * each,
                                  2 * ti.min(items, task * each + each)):
                    item, d = half // 2, half % 2
                    c = item // parts
                    step = C * H * WU
                    base = item % parts * images * step + c * H * WU
                    grads_at = item % parts * entries * products
                    if need_x and c != now:
                        now = c
                        kernel.make(small, table, c, C, reps, source, flipped,
                                    floats, weight, True)
                    length = H
                    first_group, last_group = 0, groups_v
                    if d == 1:
                        length = WU * unit
                        first_group = groups_v
                        last_group = groups_v + groups_h
                    # Without any tap in a direction a channel adds nothing.
                    down = (table[c + 1] - table[c] +
                            table[C + c + 1] - table[C + c])
                    some = down
                    if d == 1:
                        some = table[2 * C + c + 1] - table[2 * C + c]
                    blocks = (length + unit - 1) // unit
                    padded = (length + ROWS - 1) // ROWS * ROWS
                    height = padded + 2 * pad
                    result = plane + size * height
                    plane_x = result + size * padded
                    spread = plane_x + size * height
                    for g in range(first_group, last_group):
                        tile = (g - first_group) * lanes
                        lists = wanted & (3 + d)
                        if need_weight and lists != 0 and some > 0:
                            move.fetch(x, base, d, H, WU, images, step, tile,
                                       units, stage, edge)
                            change.to_planes(rows_v, rows_h, stage, d, blocks,
                                             mask, g, scratch, rows, plane_x,
                                             height, length, floats,
                                             edge * unit, g > first_group,
                                             g < last_group - 1, False, 0, 0,
                                             1, 0, cleared_x != length)
                            cleared_x = length
                        at = weight + d * down * products
                        for s in range(2 * d, 2 + d):
                            first = table[s * C + c]
                            last = table[s * C + c + 1]
                            if wanted >> s & 1:
                                if last > first:
                                    if s == 0:
                                        move.fetch(grad_v, base, 0, H, WU,
                                                   images, step, tile, units,
                                                   stage, edge)
                                    elif s == 1:
                                        move.fetch(grad_i, base, 0, H, WU,
                                                   images, step, tile, units,
                                                   stage, edge)
                                    else:
                                        move.fetch(grad_h, base, 1, H, WU,
                                                   images, step, tile, units,
                                                   stage, edge)
                                    change.to_planes(
                                        rows_v, rows_h, stage, d, blocks,
                                        mask, g, scratch, rows, plane, height,
                                        length, floats, edge * unit,
                                        g > first_group, g < last_group - 1,
                                        True, spread, padded + 8, need_x,
                                        need_weight, cleared != length)
                                    if need_x:
                                        cleared = length
                                if need_weight:
                                    walk.correlate(
                                        table, offset, first, last, scratch,
                                        plane_x, height, length, spread,
                                        padded + 8, grads, grads_at,
                                        g > first_group)
                                if need_x:
                                    walk.convolve(
                                        floats, at, table, offset_x, first,
                                        last, scratch, plane, height, length,
                                        result, padded,
                                        s == 1 and wanted & 1 != 0)
                            at += (last - first) * products
                        # The first direction writes, the other adds.
                        adds = d == 1 and wanted & 3 != 0
                        if need_x and lists != 0 and (some > 0 or not adds):
                            change.from_plane(scratch, result, padded, d,
                                              blocks, rows, rows_v, rows_h,
                                              stage)
                            move.deliver(units, stage, d, H, WU, images, step,
                                         tile, grad_x, base, adds)
        for turn in range(512 * tasks):
            if (turn & 511) == 0 and sizes[15]:
                task = turn >> 9
                C, reps, uses, k = sizes[7], sizes[10], sizes[11], sizes[12]
                entries, parts = table[3 * C], sizes[3]
                used = 3 * C + 1 + entries * (3 + reps)
                kernels = parts * entries * products
                each = (C + tasks - 1) // tasks
                for c in range(task * each, ti.min(C, task * each + each)):
                    for s in range(3):
                        for t in range(table[s * C + c],
                                       table[s * C + c + 1]):
                            kernel.from_products(
                                grads, t * products, parts,
                                entries * products, kernels + t * area)
                    for j in range(c * k, c * k + k):
                        kernel.collect(grads, kernels, table, used + j * uses,
                                       uses, table[2 * C], grad, j * area)

    return fused_backward
