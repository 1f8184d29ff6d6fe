r"""Both strips of a deployed layer in ``channels_last``, on the CPU.

.. math::
    out[h, w] = b + \sum_{a,n} V[a, n]\ x[h + a - p,\ w + n - N//2]
                  + \sum_{a,n} H[n, a]\ x[h + n - N//2,\ w + a - p]

Lanes are channels, so that tensors are read and written as they lie, and
nothing is moved between lanes. One task takes the images of a few vectors of
channels. Of each it goes along a direction in *tiles*, ``TILE`` neighbours
across it: the short convolution of :mod:`cook_toom` across the strip saves
half of the products, and along it ``ROWS`` rows of sums stay in registers.
What every strip has at a place is walked, zeros too: for few taps that differ
from channel to channel :mod:`fused` is made. Nothing is added across tasks,
so results do not depend on the threads.
"""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache

from .lane_transforms import transforms
from .lanes import INDEX, TILE, layout

__all__ = ['strips_kernel', 'ROWS', 'SIZES']

# Rows whose sums are kept in registers: a divisor of 224 / 4, 8, 16 and 32.
ROWS = 7
SIZES = ('items', 'images', 'channels', 'height', 'width', 'places',
         'before', 'share')


@cache
def strips_kernel(taps: int, lanes: int):
    """Compiles the kernel.

    Args:
        taps (int): ``N``, 3 or 5.
        lanes (int): Vector width, 8 or 16.
    """
    import taichi as ti
    types = layout(taps, lanes)
    size, halo, vec = types.size, types.halo, types.vec
    change = transforms(taps, lanes)

    @ti.func
    def taken(x: ti.template(), line, step, place, across):
        """A vector beside the line's start; zero outside the image."""
        inside = ti.min(ti.max(place, 0), across - 1)
        at = (line + inside * step) & INDEX
        v = vec([x[at + lane] for lane in ti.static(range(lanes))])
        return ti.select(inside == place, v, 0.0)

    @ti.func
    def transform(x: ti.template(), line, step, first, across,
                  scratch: ti.template(), to):
        """``B x`` of a tile and its neighbours."""
        x0 = taken(x, line, step, first, across)
        x1 = taken(x, line, step, first + 1, across)
        x2 = taken(x, line, step, first + 2, across)
        x3 = taken(x, line, step, first + 3, across)
        x4 = taken(x, line, step, first + 4, across)
        x5 = taken(x, line, step, first + 5, across)
        if ti.static(halo == 1):
            change.put_products(scratch, (x0, x1, x2, x3, x4, x5), to)
        else:
            x6 = taken(x, line, step, first + 6, across)
            x7 = taken(x, line, step, first + 7, across)
            change.put_products(scratch, (x0, x1, x2, x3, x4, x5, x6, x7), to)

    @ti.func
    def walk(weights: ti.template(), at, first, last,
             scratch: ti.template(), rows, to):
        """Sums of the places ``first..last-1`` over ``ROWS`` rows.

        Two at a time share what they load; behind the last stands a zero.
        """
        for q in range(size):
            a0, a1, a2, a3 = vec(0.0), vec(0.0), vec(0.0), vec(0.0)
            a4, a5, a6 = vec(0.0), vec(0.0), vec(0.0)
            for pair in range((last - first + 1) // 2):
                place = first + 2 * pair
                w = (at + place * size + q) & INDEX
                u = (rows + place * size + q) & INDEX
                w0, w1 = weights[w], weights[w + size]
                v = scratch[u]
                a0 += w0 * v
                v = scratch[u + size]
                a0 += w1 * v
                a1 += w0 * v
                v = scratch[u + 2 * size]
                a1 += w1 * v
                a2 += w0 * v
                v = scratch[u + 3 * size]
                a2 += w1 * v
                a3 += w0 * v
                v = scratch[u + 4 * size]
                a3 += w1 * v
                a4 += w0 * v
                v = scratch[u + 5 * size]
                a4 += w1 * v
                a5 += w0 * v
                v = scratch[u + 6 * size]
                a5 += w1 * v
                a6 += w0 * v
                v = scratch[u + 7 * size]
                a6 += w1 * v
            out = (to + q) & INDEX
            scratch[out] = a0
            scratch[out + size] = a1
            scratch[out + 2 * size] = a2
            scratch[out + 3 * size] = a3
            scratch[out + 4 * size] = a4
            scratch[out + 5 * size] = a5
            scratch[out + 6 * size] = a6

    @ti.func
    def put(out: ti.template(), to, value, bias, add):
        at = to & INDEX
        if add:
            out[at] = out[at] + value  # += would be atomic
        else:
            out[at] = value + bias

    @ti.func
    def store(scratch: ti.template(), frm, out: ti.template(), to, step,
              there, bias, add):
        """``A m`` of a row of sums, the part that is in the image."""
        y0, y1, y2, y3 = change.summed(scratch, frm & INDEX)
        put(out, to, y0, bias, add)
        if there > 1:
            put(out, to + step, y1, bias, add)
        if there > 2:
            put(out, to + 2 * step, y2, bias, add)
        if there > 3:
            put(out, to + 3 * step, y3, bias, add)

    @ti.kernel
    def channel_strips(
            x: types.Floats,  # (B, H, W, C)
            out: types.Vectors,  # (B, H, W, vectors)
            weights: types.Vectors,  # (vectors, 2, places + 1, size)
            bias: types.Floats,  # (C,)
            sizes: types.Ints, scratch: types.Vectors, tasks: ti.i32):
        # Taichi gives a core at least 512 turns of a loop.
        for turn in range(512 * tasks):
            if (turn & 511) == 0:
                task = turn >> 9
                items, images, C = sizes[0], sizes[1], sizes[2]
                H, W, places, before = sizes[3], sizes[4], sizes[5], sizes[6]
                vectors = (C + lanes - 1) // lanes
                each = (items + tasks - 1) // tasks
                sums = task * sizes[7]
                plane = sums + ROWS * size
                cleared = -1
                for half in range(2 * task * each,
                                  2 * ti.min(items, task * each + each)):
                    item, d = half // 2, half % 2
                    c = item // images
                    # The last vector reaches back into the one before.
                    channel = ti.min(c * lanes, C - lanes)
                    pixel = item % images * H * W
                    length, across, along, beside = H, W, W, 1
                    if d == 1:
                        length, across, along, beside = W, H, 1, W
                    offset = vec([bias[channel + lane]
                                  for lane in ti.static(range(lanes))])
                    at = (2 * c + d) * (places + 1) * size
                    if cleared != length:
                        for i in range(ROWS * size):
                            scratch[plane + i] = vec(0.0)
                            scratch[plane + (ROWS + length) * size +
                                    i] = vec(0.0)
                        cleared = length
                    for part in range((across + TILE - 1) // TILE):
                        first = part * TILE
                        for r in range(length):
                            transform(x, (pixel + r * along) * C + channel,
                                      beside * C, first - halo, across,
                                      scratch,
                                      (plane + (ROWS + r) * size) & INDEX)
                        for block in range((length + ROWS - 1) // ROWS):
                            top = block * ROWS
                            walk(weights, at,
                                 ti.max(before - top - ROWS + 1, 0),
                                 ti.min(before + length - top, places),
                                 scratch,
                                 plane + (ROWS + top - before) * size, sums)
                            for r in range(ti.min(ROWS, length - top)):
                                store(scratch, sums + r * size, out,
                                      (pixel + (top + r) * along +
                                       first * beside) * vectors + c,
                                      beside * vectors, across - first,
                                      offset, d == 1)

    return channel_strips
