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

from .lane_stores import stores
from .lane_sums import sums
from .lane_transforms import transforms
from .lane_weights import weights
from .lanes import MASKS, ROWS, TILE, layout, movers

__all__ = ['forward_kernel', 'backward_kernel', 'LISTS', 'SIZES']

LISTS = 'vih'  # the order of the lists: two down the columns, one along rows
SIZES = ('share', 'floats', 'items', 'parts', 'images', 'groups_v',
         'groups_h', 'channels', 'height', 'quads', 'reps', 'uses', 'taps',
         'wanted', 'need_x', 'need_weight')


@cache
def forward_kernel(taps: int, lanes: int, span: int):
    """Compiles the forward kernel.

    What is wanted is told at run time: compiling takes seconds.

    Args:
        taps (int): ``N``, 3 or 5.
        lanes (int): Vector width, 8 or 16.
        span (int): Floats written together, of
            :data:`~.lane_stores.SPANS`.
    """
    import taichi as ti
    types = layout(taps, lanes)
    size, pad = types.size, types.pad
    move, change, walk, kernel = (
        make(taps, lanes)
        for make in (movers, transforms, sums, weights))
    write = stores(taps, lanes, span)
    Out = types.Quads if span == TILE else types.Pairs
    products = taps * size

    @ti.kernel
    def fused_forward(
            x: types.Quads,  # (B, C, H, W), as the next three
            out_v: Out, out_i: Out, out_h: Out,
            small: types.Floats,  # (C * k, N, N)
            table: types.Ints,  # start, offset and source of Taps
            mask: types.Masks,  # (groups, MASKS)
            places: types.Ints,  # of lanes
            sizes: types.Ints,
            scratch: types.Vectors,
            floats: types.Floats,  # the same memory
            tasks: ti.i32):
        # Taichi gives a core at least 512 turns of a loop.
        for turn in range(512 * tasks):
            if (turn & 511) == 0:
                task = turn >> 9
                share, items, parts = sizes[0], sizes[2], sizes[3]
                images, groups_v, groups_h = sizes[4], sizes[5], sizes[6]
                C, H, width, reps = sizes[7], sizes[8], sizes[9], sizes[10]
                wanted = sizes[13]
                offset = 3 * C + 1
                source = offset + table[3 * C]
                each = (items + tasks - 1) // tasks
                longest = (ti.max(H, 4 * width) + ROWS - 1) // ROWS * ROWS
                tiles = task * share
                edge = (tiles + 4 * longest) * lanes
                plane = tiles + 4 * longest + 4 * longest // lanes
                weight = ((task + 1) * share) * lanes - sizes[1]
                one = ti.cast(ti.min(tasks, 1), ti.f32)
                now, cleared = -1, 0
                for half in range(2 * task * each,
                                  2 * ti.min(items, task * each + each)):
                    item, d = half // 2, half % 2
                    c = item // parts
                    step = C * H * width
                    base = item % parts * images * step + c * H * width
                    if c != now:
                        now = c
                        kernel.make(small, table, c, C, reps, source, -1,
                                    floats, weight, False)
                    length = H
                    first_group, last_group = 0, groups_v
                    if d == 1:
                        length = 4 * width
                        first_group = groups_v
                        last_group = groups_v + groups_h
                    # Without any tap in a direction a channel is zeros.
                    down = (table[c + 1] - table[c] +
                            table[C + c + 1] - table[C + c])
                    some = down
                    if d == 1:
                        some = table[2 * C + c + 1] - table[2 * C + c]
                    if wanted & (3 + d) != 0:
                        padded = (length + ROWS - 1) // ROWS * ROWS
                        height = padded + 2 * pad
                        result = plane + size * height
                        for g in range(first_group, last_group):
                            near, far = g > first_group, g < last_group - 1
                            place = (g + d * 3 * (g - first_group)) * lanes
                            if some > 0:
                                if d == 0:
                                    move.load_v(x, base, width, H, places,
                                                place, near, far, scratch,
                                                tiles, floats, edge, one)
                                else:
                                    move.load_h(x, base, width, places, place,
                                                near, far, mask, g * MASKS,
                                                scratch, tiles, floats, edge,
                                                one)
                                change.to_products(
                                    scratch, tiles, length, mask,
                                    g * MASKS + 4, floats, edge, plane,
                                    height, cleared != length)
                                cleared = length
                            at = weight + d * down * products
                            for s in range(2 * d, 2 + d):
                                first = table[s * C + c]
                                last = table[s * C + c + 1]
                                if wanted >> s & 1:
                                    walk.convolve(
                                        floats, at, table, offset, first,
                                        last, scratch, plane, length,
                                        result, padded, False, tiles, True)
                                    if s == 0:
                                        write.store_v(
                                            scratch, tiles, H, places,
                                            place, mask, g * MASKS, out_v,
                                            base, width, False, one)
                                    elif s == 1:
                                        write.store_v(
                                            scratch, tiles, H, places,
                                            place, mask, g * MASKS, out_i,
                                            base, width, False, one)
                                    else:
                                        write.store_h(
                                            scratch, tiles, places, place,
                                            mask, g * MASKS, out_h, base,
                                            width, False, one)
                                at += (last - first) * products

    return fused_forward


@cache
def backward_kernel(taps: int, lanes: int, span: int):
    """Compiles the kernel of the gradients.

    The gradient of ``x`` is the same convolution with flipped taps; the one
    of the weights correlates the products, and is given for each of them.

    Args:
        taps, lanes, span: As for :func:`forward_kernel`.
    """
    import taichi as ti
    types = layout(taps, lanes)
    size, pad = types.size, types.pad
    move, change, walk, kernel = (
        make(taps, lanes)
        for make in (movers, transforms, sums, weights))
    write = stores(taps, lanes, span)
    Out = types.Quads if span == TILE else types.Pairs
    area, products = taps * taps, taps * size

    @ti.kernel
    def fused_backward(
            x: types.Quads,  # (B, C, H, W), as the next four
            grad_v: types.Quads, grad_i: types.Quads, grad_h: types.Quads,
            grad_x: Out,
            small: types.Floats,  # (C * k, N, N), as the next
            grad: types.Floats,
            table: types.Ints,  # all of Taps
            grads: types.Floats,  # (parts, entries, N, a), (entries, N, N)
            mask: types.Masks,  # (groups, MASKS)
            places: types.Ints,  # of lanes
            sizes: types.Ints,
            scratch: types.Vectors,
            floats: types.Floats,  # the same memory
            tasks: ti.i32):
        # Taichi gives a core at least 512 turns of a loop.
        for turn in range(512 * tasks):
            if (turn & 511) == 0:
                task = turn >> 9
                share, items, parts = sizes[0], sizes[2], sizes[3]
                images, groups_v, groups_h = sizes[4], sizes[5], sizes[6]
                C, H, width, reps = sizes[7], sizes[8], sizes[9], sizes[10]
                wanted, need_x, need_weight = sizes[13], sizes[14], sizes[15]
                entries = table[3 * C]
                offset = 3 * C + 1
                source = offset + entries
                flipped = source + entries * reps
                offset_x = flipped + entries
                each = (items + tasks - 1) // tasks
                longest = (ti.max(H, 4 * width) + ROWS - 1) // ROWS * ROWS
                tiles = task * share
                edge = (tiles + 4 * longest) * lanes
                plane = tiles + 4 * longest + 4 * longest // lanes
                weight = ((task + 1) * share) * lanes - sizes[1]
                one = ti.cast(ti.min(tasks, 1), ti.f32)
                now, cleared, cleared_x, cleared_g = -1, 0, 0, 0
                for half in range(2 * task * each,
                                  2 * ti.min(items, task * each + each)):
                    item, d = half // 2, half % 2
                    c = item // parts
                    step = C * H * width
                    base = item % parts * images * step + c * H * width
                    grads_at = item % parts * entries * products
                    if need_x and c != now:
                        now = c
                        kernel.make(small, table, c, C, reps, source, flipped,
                                    floats, weight, True)
                    length = H
                    first_group, last_group = 0, groups_v
                    if d == 1:
                        length = 4 * width
                        first_group = groups_v
                        last_group = groups_v + groups_h
                    # Without any tap in a direction a channel adds nothing.
                    down = (table[c + 1] - table[c] +
                            table[C + c + 1] - table[C + c])
                    some = down
                    if d == 1:
                        some = table[2 * C + c + 1] - table[2 * C + c]
                    padded = (length + ROWS - 1) // ROWS * ROWS
                    height = padded + 2 * pad
                    result = plane + size * height
                    plane_x = result + size * padded
                    spread = plane_x + size * height
                    for g in range(first_group, last_group):
                        near, far = g > first_group, g < last_group - 1
                        place = (g + d * 3 * (g - first_group)) * lanes
                        sides = g * MASKS + 4
                        lists = wanted & (3 + d)
                        if need_weight and lists != 0 and some > 0:
                            if d == 0:
                                move.load_v(x, base, width, H, places, place,
                                            near, far, scratch, tiles, floats,
                                            edge, one)
                            else:
                                move.load_h(x, base, width, places, place,
                                            near, far, mask, g * MASKS,
                                            scratch, tiles, floats, edge, one)
                            change.to_products(scratch, tiles, length, mask,
                                               sides, floats, edge, plane_x,
                                               height, cleared_x != length)
                            cleared_x = length
                        at = weight + d * down * products
                        for s in range(2 * d, 2 + d):
                            first = table[s * C + c]
                            last = table[s * C + c + 1]
                            if wanted >> s & 1:
                                if last > first:
                                    if s == 0:
                                        move.load_v(grad_v, base, width, H,
                                                    places, place, near, far,
                                                    scratch, tiles, floats,
                                                    edge, one)
                                    elif s == 1:
                                        move.load_v(grad_i, base, width, H,
                                                    places, place, near, far,
                                                    scratch, tiles, floats,
                                                    edge, one)
                                    else:
                                        move.load_h(grad_h, base, width,
                                                    places, place, near, far,
                                                    mask, g * MASKS, scratch,
                                                    tiles, floats, edge, one)
                                    if need_weight:
                                        change.to_spread(
                                            scratch, tiles, length, mask,
                                            g * MASKS, spread, padded + 8,
                                            cleared_g != length)
                                        cleared_g = length
                                    if need_x:
                                        change.to_products(
                                            scratch, tiles, length, mask,
                                            sides, floats, edge, plane,
                                            height, cleared != length)
                                        cleared = length
                                if need_weight:
                                    walk.correlate(
                                        table, offset, first, last, scratch,
                                        plane_x, length, spread, grads,
                                        grads_at, g > first_group)
                                if need_x:
                                    walk.convolve(
                                        floats, at, table, offset_x, first,
                                        last, scratch, plane, length,
                                        result, padded,
                                        s == 1 and wanted & 1 != 0, tiles,
                                        False)
                            at += (last - first) * products
                        # The first direction writes, the other adds.
                        adds = d == 1 and wanted & 3 != 0
                        if need_x and lists != 0 and (some > 0 or not adds):
                            change.from_products(scratch, result, length,
                                                 tiles)
                            if d == 0:
                                write.store_v(scratch, tiles, H, places,
                                              place, mask, g * MASKS, grad_x,
                                              base, width, adds, one)
                            else:
                                write.store_h(scratch, tiles, places, place,
                                              mask, g * MASKS, grad_x, base,
                                              width, adds, one)
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
