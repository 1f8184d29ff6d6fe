r"""Strips run whole, a lane a channel, on the CPU; without gradients.

.. math::
    out_V[h, w] = \sum_{a,n} V[a, n]\ x[h + a - p,\ w + n - N//2]

:math:`out_H` is its transpose, and :math:`out_I` has a strip of ``N`` places
with ``p = N // 2``. A deployed layer has one output, :math:`out_V + out_H`
and a bias.

A vector holds a pixel's neighbouring channels. In ``channels_last`` tensors
are read and written as they lie; else a plane is turned before and after.
One task takes the images of a few vectors of channels. Of each it goes along
a direction in *tiles*, ``TILE`` neighbours across it: the short convolution
of :mod:`cook_toom` across the strip saves half of the products, and along it
some rows of sums stay in registers (:mod:`channel_sums`). What every strip
has at a place is walked, zeros too: for few taps that differ from channel to
channel :mod:`fused` is made. Nothing is added across tasks, so results do not
depend on the threads.
"""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache

from .channel_sums import channel_sums
from .lanes import layout, movers

__all__ = ['deployed_kernel', 'forward_kernel', 'SIZES']

SIZES = ('items', 'images', 'channels', 'height', 'width', 'places',
         'before', 'share', 'wanted')


@cache
def deployed_kernel(taps: int, lanes: int):
    """Compiles the kernel of a deployed layer, for ``channels_last``.

    Args:
        taps (int): ``N``, 3 or 5.
        lanes (int): Vector width, 8 or 16.
    """
    import taichi as ti
    types = layout(taps, lanes)
    size, vec = types.size, types.vec
    sums = channel_sums(taps, lanes)

    @ti.kernel
    def deployed_strips(
            x: types.Floats,  # (B, H, W, C)
            out: types.Vectors,  # (B, H, W, vectors)
            weights: types.Vectors,  # (vectors, places of v, i, h, size)
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
                own = task * sizes[7]
                for item in range(task * each,
                                  ti.min(items, task * each + each)):
                    c = item // images
                    # The last vector reaches back into the one before.
                    channel = ti.min(c * lanes, C - lanes)
                    pixel = item % images * H * W
                    offset = vec([bias[channel + lane]
                                  for lane in ti.static(range(lanes))])
                    at = c * (2 * places + taps + 3)
                    sums.clear(scratch, own, H)
                    sums.convolve(
                        x, pixel * C + channel, C, out, pixel * vectors + c,
                        vectors, H, W, False, weights, at * size, places,
                        before, scratch, own, offset, False)
                    at += places + taps + 2
                    sums.clear(scratch, own, W)
                    sums.convolve(
                        x, pixel * C + channel, C, out, pixel * vectors + c,
                        vectors, H, W, True, weights, at * size, places,
                        before, scratch, own, offset, True)

    return deployed_strips


@cache
def forward_kernel(taps: int, lanes: int):
    """Compiles the kernel of the operator, for rows that are contiguous.

    Args:
        taps, lanes: As for :func:`deployed_kernel`.
    """
    import taichi as ti
    types = layout(taps, lanes)
    size, halo, vec = types.size, types.halo, types.vec
    sums, move = channel_sums(taps, lanes), movers(taps, lanes)

    @ti.func
    def turned(scratch: ti.template(), frm, quads, out: ti.template(), to,
               places_of: ti.template(), one):
        """A plane of pixels back to the planes of its channels."""
        for q in range(quads):
            at = frm + 4 * q
            move.scatter(scratch[at], scratch[at + 1], scratch[at + 2],
                         scratch[at + 3], out, to + q, places_of, 0, False,
                         one)

    @ti.kernel
    def strips_forward(
            x: types.Quads,  # (B, C, H, W), as the next three
            out_v: types.Quads, out_i: types.Quads, out_h: types.Quads,
            weights: types.Vectors,  # (vectors, places of v, i, h, size)
            places_of: types.Ints,  # of the lanes' planes
            sizes: types.Ints, scratch: types.Vectors,
            floats: types.Floats,  # the same memory
            tasks: ti.i32):
        # Taichi gives a core at least 512 turns of a loop.
        for turn in range(512 * tasks):
            if (turn & 511) == 0:
                task = turn >> 9
                items, images, C = sizes[0], sizes[1], sizes[2]
                H, W, places, before = sizes[3], sizes[4], sizes[5], sizes[6]
                wanted = sizes[8]
                each = (items + tasks - 1) // tasks
                quads = H * W // 4
                given = task * sizes[7]
                result = given + H * W
                own = result + H * W
                one = ti.cast(ti.min(tasks, 1), ti.f32)
                for item in range(task * each,
                                  ti.min(items, task * each + each)):
                    c = item // images
                    # The last vector reaches back into the one before.
                    channel = ti.min(c * lanes, C - lanes)
                    base = (item % images * C + channel) * quads
                    for q in range(quads):
                        x0, x1, x2, x3 = move.gather(x, base + q, places_of,
                                                     0, one)
                        to = given + 4 * q
                        scratch[to], scratch[to + 1] = x0, x1
                        scratch[to + 2], scratch[to + 3] = x2, x3
                    at = c * (2 * places + taps + 3)
                    sums.clear(scratch, own, H)
                    if wanted & 1:
                        sums.convolve(
                            floats, given * lanes, lanes, scratch, result, 1,
                            H, W, False, weights, at * size, places, before,
                            scratch, own, vec(0.0), False)
                        turned(scratch, result, quads, out_v, base,
                               places_of, one)
                    at += places + 1
                    if wanted & 2:
                        sums.convolve(
                            floats, given * lanes, lanes, scratch, result, 1,
                            H, W, False, weights, at * size, taps, halo,
                            scratch, own, vec(0.0), False)
                        turned(scratch, result, quads, out_i, base,
                               places_of, one)
                    at += taps + 1
                    if wanted & 4:
                        sums.clear(scratch, own, W)
                        sums.convolve(
                            floats, given * lanes, lanes, scratch, result, 1,
                            H, W, True, weights, at * size, places, before,
                            scratch, own, vec(0.0), False)
                        turned(scratch, result, quads, out_h, base,
                               places_of, one)

    return strips_forward
