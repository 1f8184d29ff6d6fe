r"""Strips run whole, a lane a channel, on the CPU; without gradients.

.. math::
    out_V[h, w] = \sum_{a,n} V[a, n]\ x[h + a - p,\ w + n - N//2]

:math:`out_H` is its transpose, and :math:`out_I` has a strip of ``N`` places
with ``p = N // 2``. A deployed layer has one output, :math:`out_V + out_H`
and a bias; what it returns may go through squeeze and excitation
(:mod:`excitation`) in the same launch.

A vector holds a pixel's neighbouring channels. In ``channels_last`` tensors
are read and written as they lie; else a plane is turned before and after.
One task takes a vector of channels, and some or all images of it. It makes
the products of both strips, and copies one plane after the other into a
border of zeros. Where its channels have nothing but their centre, as ghosts,
it only scales them. Along a direction it goes in *tiles*, ``TILE`` neighbours
across it: the short convolution of :mod:`cook_toom` across the strip saves
half of the products, and along it some rows of sums stay in registers
(:mod:`channel_sums`). What every strip has at a place is walked, zeros too:
for few taps that differ from channel to channel :mod:`fused` is made. Nothing
is added across tasks, so results do not depend on the threads.
"""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache

from . import lane_sums
from .channel_sums import ROWS, SIDE, channel_sums
from .excitation import excitation
from .lanes import INDEX, layout, movers

__all__ = ['deployed_kernel', 'forward_kernel', 'SIZES']

# ``each``: images of a task; ``slots``: parts of the scratch of ``share``
# vectors; ``wanted``: outputs, a bit each; ``hidden``: of the excitation, for
# which an image has so many ``parts``.
SIZES = ('slots', 'images', 'channels', 'height', 'width', 'places',
         'before', 'share', 'wanted', 'each', 'hidden', 'parts')


@cache
def deployed_kernel(taps: int, lanes: int, excited: bool):
    """Compiles the kernel of a deployed layer, for ``channels_last``.

    Args:
        taps (int): ``N``, 3 or 5.
        lanes (int): Vector width, 8 or 16.
        excited (bool): Whether squeeze and excitation follows. If not, the
            arguments from ``down`` to ``room`` are not read.
    """
    import taichi as ti
    types = layout(taps, lanes)
    size, halo, vec = types.size, types.halo, types.vec
    sums, excite = channel_sums(taps, lanes), excitation(lanes)
    total_of = lane_sums.sums(taps, lanes).total

    @ti.func
    def read(x: ti.template(), frm):
        """A vector, wherever it begins."""
        at = frm & INDEX
        return vec([x[at + lane] for lane in ti.static(range(lanes))])

    @ti.func
    def is_scaled(strip_v: ti.template(), strip_h: ti.template(), frm,
                  places, before):
        """Whether channels have nothing but their centre, in ``strip_h``."""
        # Zeros are counted: of NaN fast arithmetic may say that it is none.
        count, at, alone = places * taps, 0, True
        while at < count and alone:
            v = read(strip_v, frm + at * lanes)
            alone = total_of(ti.select(v == 0.0, vec(1.0), vec(0.0))) == lanes
            at += 1
        if alone:
            zeros = vec(0.0)
            for i in range(count):
                v = read(strip_h, frm + i * lanes)
                zeros += ti.select(v == 0.0, vec(1.0), vec(0.0))
            left = count * lanes - total_of(zeros)
            for lane in ti.static(range(lanes)):
                if strip_h[frm + lane * count + halo * places + before] != 0:
                    left -= 1
            alone = left == 0
        return alone

    @ti.func
    def scale(x: ti.template(), frm, step, factor, offset,
              out: ti.template(), to, out_step, rows, width):
        """``factor * x + offset`` of all pixels, and its sum."""
        total = vec(0.0)
        for r in range(rows):
            of_row = vec(0.0)  # sums of fewer are more exact
            for i in range(r * width, r * width + width):
                v = read(x, frm + i * step) * factor + offset
                out[(to + i * out_step) & INDEX] = v
                of_row += v
            total += of_row
        return total

    @ti.func
    def put_means(means: ti.template(), to, total, pixels):
        mean = total * (1.0 / pixels)
        for lane in ti.static(range(lanes)):
            means[to + lane] = mean[lane]

    @ti.kernel
    def deployed_strips(
            x: types.Floats,  # (B, H, W, C)
            out: types.Vectors,  # (B, H, W, vectors)
            strip_v: types.Floats,  # (C, places, N)
            strip_h: types.Floats,  # (C, N, places)
            bias: types.Floats,  # (C,)
            down: types.Floats,  # (hidden, C)
            down_bias: types.Floats,  # (hidden,)
            up: types.Floats,  # (C, hidden)
            up_bias: types.Floats,  # (C,)
            means: types.Floats,  # (B, C)
            room: types.Floats,  # (B, parts, 2 * hidden + C)
            sizes: types.Ints, taken: types.Ints, scratch: types.Vectors,
            tasks: ti.i32):
        ti.loop_config(serialize=True)
        for slot in range(sizes[0]):
            taken[slot] = 0
        # Taichi gives a core at least 512 turns of a loop.
        for turn in range(512 * tasks):
            if (turn & 511) == 0:
                task = turn >> 9
                images, C, each = sizes[1], sizes[2], sizes[9]
                H, W = sizes[3], sizes[4] & SIDE
                places, before = sizes[5], sizes[6]
                vectors = (C + lanes - 1) // lanes
                parts = tasks // vectors
                one = ti.min(tasks, 1)
                wide = sums.whole(W) + 2 * halo
                strip = (places + 2 * ROWS) * size
                # The last vector reaches back into the one before.
                c = task // parts
                channel = ti.min(c * lanes, C - lanes)
                frm = channel * places * taps
                offset = vec([bias[channel + lane]
                              for lane in ti.static(range(lanes))])
                first = task % parts * each
                last = ti.min(images, first + each)
                if is_scaled(strip_v, strip_h, frm, places, before):
                    at = frm + halo * places + before
                    factor = vec([strip_h[at + lane * places * taps]
                                  for lane in ti.static(range(lanes))])
                    for image in range(first, last):
                        pixel = image * H * W
                        total = scale(x, pixel * C + channel, C, factor,
                                      offset, out, pixel * vectors + c,
                                      vectors, H, W)
                        if ti.static(excited):
                            put_means(means, image * C + channel, total,
                                      H * W)
                else:
                    slot = sums.take(taken, sizes[0])
                    weights = slot * sizes[7]
                    plane = weights + 2 * strip
                    result = plane + (sums.whole(H) + 2 * halo) * wide
                    row = sums.whole(W)
                    own = result + sums.whole(H) * row
                    sums.clear(scratch, plane, result - plane)
                    sums.weigh(strip_v, frm, places, places * taps, taps, 1,
                               scratch, weights)
                    sums.weigh(strip_h, frm, places, places * taps, 1, places,
                               scratch, weights + strip)
                    for image in range(first, last):
                        pixel = image * H * W
                        for r in range(H):
                            source = (pixel + r * W) * C + channel
                            to = (plane + (r + halo) * wide + halo) & INDEX
                            for i in range(W):
                                scratch[to + i] = read(x, source + i * C)
                        for turned in range(2):
                            sums.convolve(
                                scratch, plane, turned, H, W,
                                weights + turned * strip, places, before,
                                result, own, one, turned)
                        total = vec(0.0)
                        for r in range(H):
                            of_row = vec(0.0)
                            at = (result + r * row) & INDEX
                            to = (pixel + r * W) * vectors + c
                            for i in range(W):
                                v = scratch[at + i] + offset
                                out[(to + i * vectors) & INDEX] = v
                                of_row += v
                            total += of_row
                        if ti.static(excited):
                            put_means(means, image * C + channel, total,
                                      H * W)
                    ti.atomic_and(taken[slot], 0)
        if ti.static(excited):
            for turn in range(512 * sizes[1] * sizes[11]):
                if (turn & 511) == 0:
                    excite(turn >> 9, means, down, down_bias, up, up_bias,
                           room, out, sizes[2], sizes[10],
                           sizes[3] * sizes[4], sizes[11])

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
    def turned_out(scratch: ti.template(), frm, wide, width, quads,
                   out: ti.template(), to, spots: ti.template(), one):
        """A plane of pixels to the planes of its channels."""
        r, i = 0, 0
        for q in range(quads):
            x0, x1, x2, x3 = vec(0.0), vec(0.0), vec(0.0), vec(0.0)
            for j in ti.static(range(4)):
                v = scratch[(frm + r * wide + i) & INDEX]
                if ti.static(j == 0):
                    x0 = v
                if ti.static(j == 1):
                    x1 = v
                if ti.static(j == 2):
                    x2 = v
                if ti.static(j == 3):
                    x3 = v
                i += 1
                if i == width:
                    r, i = r + 1, 0
            move.scatter(x0, x1, x2, x3, out, to + q, spots, False, one)

    @ti.kernel
    def strips_forward(
            x: types.Quads,  # (B, C, H, W), as the next three
            out_v: types.Quads, out_i: types.Quads, out_h: types.Quads,
            strip_v: types.Floats,  # (C, places, N)
            small: types.Floats,  # (C, N, N)
            strip_h: types.Floats,  # (C, N, places)
            places_of: types.Ints,  # of the lanes' planes
            sizes: types.Ints, taken: types.Ints, scratch: types.Vectors,
            tasks: ti.i32):
        ti.loop_config(serialize=True)
        for slot in range(sizes[0]):
            taken[slot] = 0
        # Taichi gives a core at least 512 turns of a loop.
        for turn in range(512 * tasks):
            if (turn & 511) == 0:
                task = turn >> 9
                images, C, each = sizes[1], sizes[2], sizes[9]
                H, W, places, before = sizes[3], sizes[4], sizes[5], sizes[6]
                wanted = sizes[8]
                parts = tasks // ((C + lanes - 1) // lanes)
                quads = H * W // 4
                one = ti.min(tasks, 1)
                factor = ti.cast(one, ti.f32)
                wide = sums.whole(W) + 2 * halo
                strip = (places + 2 * ROWS) * size
                slot = sums.take(taken, sizes[0])
                weights = slot * sizes[7]
                plane = weights + 2 * strip + (taps + 2 * ROWS) * size
                result = plane + (sums.whole(H) + 2 * halo) * wide
                own = result + sums.whole(H) * sums.whole(W)
                sums.clear(scratch, plane, result - plane)
                # The last vector reaches back into the one before.
                channel = ti.min(task // parts * lanes, C - lanes)
                frm, of_channel = channel * places * taps, places * taps
                if wanted & 1:
                    sums.weigh(strip_v, frm, places, of_channel, taps, 1,
                               scratch, weights)
                if wanted & 2:
                    sums.weigh(small, channel * taps * taps, taps,
                               taps * taps, taps, 1, scratch,
                               weights + 2 * strip)
                if wanted & 4:
                    sums.weigh(strip_h, frm, places, of_channel, 1, places,
                               scratch, weights + strip)
                first, spots = task % parts * each, move.look_up(places_of, 0)
                for image in range(first, ti.min(images, first + each)):
                    base = (image * C + channel) * quads
                    to = plane + halo * wide + halo
                    r, i = 0, 0
                    for q in range(quads):
                        given = move.gather(x, base + q, ti.static(spots),
                                            factor)
                        for j in ti.static(range(4)):
                            scratch[(to + r * wide + i) & INDEX] = given[j]
                            i += 1
                            if i == W:
                                r, i = r + 1, 0
                    for which in range(3):
                        if (wanted >> which) & 1:
                            count, centre = places, before
                            turned, of = 0, 0
                            if which == 1:
                                count, centre, of = taps, halo, 2 * strip
                            if which == 2:
                                turned, of = 1, strip
                            sums.convolve(
                                scratch, plane, turned, H, W, weights + of,
                                count, centre, result, own, one, 0)
                            if which == 0:
                                turned_out(scratch, result, sums.whole(W), W,
                                           quads, out_v, base,
                                           ti.static(spots), factor)
                            if which == 1:
                                turned_out(scratch, result, sums.whole(W), W,
                                           quads, out_i, base,
                                           ti.static(spots), factor)
                            if which == 2:
                                turned_out(scratch, result, sums.whole(W), W,
                                           quads, out_h, base,
                                           ti.static(spots), factor)
                ti.atomic_and(taken[slot], 0)

    return strips_forward
