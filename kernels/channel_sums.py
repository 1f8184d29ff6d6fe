"""Whole strips over planes of pixels whose channels are lanes."""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache
from types import SimpleNamespace

from .lane_transforms import transforms
from .lanes import INDEX, TILE, layout
from .vector_ops import add_product

__all__ = ['ROWS', 'SIDE', 'channel_sums']

# Rows whose sums are kept in registers: a divisor of 224 / 4, 8, 16 and 32.
# So many zeros stand before and behind a strip.
ROWS = 7
# No side of a plane is longer: a few times that and an index below 2**30 have
# no sign, of which LLVM cannot be sure else.
SIDE = 2**26 - 1


@cache
def channel_sums(taps: int, lanes: int) -> SimpleNamespace:
    """Device functions; see :mod:`.channel_strips`.

    Args:
        taps (int): ``N``, 3 or 5.
        lanes (int): Vector width, 8 or 16.
    """
    import taichi as ti
    types = layout(taps, lanes)
    size, halo, vec = types.size, types.halo, types.vec
    change = transforms(taps, lanes)
    mac = add_product(lanes)

    @ti.func
    def whole(length):
        """A side of a plane in whole tiles."""
        return (length + TILE - 1) // TILE * TILE

    @ti.func
    def take(taken: ti.template(), slots):
        """The first part of the scratch that no task uses.

        Few are in use at a time, and stay in a cache.
        """
        slot, at = -1, 0
        while slot < 0:
            if ti.atomic_or(taken[at], 1) == 0:
                slot = at
            at = (at + 1) % slots
        return slot

    @ti.func
    def clear(scratch: ti.template(), first, count):
        for i in range(count):
            scratch[(first + i) & INDEX] = vec(0.0)

    @ti.func
    def weigh(strip: ti.template(), frm, places, per_channel, per_place,
              per_tap, scratch: ti.template(), to):
        """``G w`` of each place of a strip, zeros around them."""
        clear(scratch, to, ROWS * size)
        for place in range(places):
            at = frm + place * per_place
            w0 = vec([strip[at + lane * per_channel]
                      for lane in ti.static(range(lanes))])
            w1 = vec([strip[at + lane * per_channel + per_tap]
                      for lane in ti.static(range(lanes))])
            w2 = vec([strip[at + lane * per_channel + 2 * per_tap]
                      for lane in ti.static(range(lanes))])
            first = (to + (ROWS + place) * size) & INDEX
            if ti.static(taps == 3):
                change.put_weights(scratch, (w0, w1, w2), first)
            else:
                w3 = vec([strip[at + lane * per_channel + 3 * per_tap]
                          for lane in ti.static(range(lanes))])
                w4 = vec([strip[at + lane * per_channel + 4 * per_tap]
                          for lane in ti.static(range(lanes))])
                change.put_weights(scratch, (w0, w1, w2, w3, w4), first)
        clear(scratch, to + (ROWS + places) * size, ROWS * size)

    @ti.func
    def transform(scratch: ti.template(), frm, step, to):
        """``B x`` of a tile and its neighbours."""
        first, by = frm & INDEX, step & SIDE
        x0, x1 = scratch[first], scratch[first + by]
        x2, x3 = scratch[first + 2 * by], scratch[first + 3 * by]
        x4, x5 = scratch[first + 4 * by], scratch[first + 5 * by]
        if ti.static(taps == 3):
            change.put_products(scratch, (x0, x1, x2, x3, x4, x5), to)
        else:
            x6, x7 = scratch[first + 6 * by], scratch[first + 7 * by]
            change.put_products(scratch, (x0, x1, x2, x3, x4, x5, x6, x7), to)

    @ti.func
    def walk(scratch: ti.template(), rows, weights, count, to, one):
        """What ``count`` rows add to ``ROWS`` sums.

        Two rows at a time share what they load; behind the last one stands a
        zero. ``weights`` is where those of the first row for the last sum
        are. LLVM must not know ``one``, 1: loops that it can count it
        unrolls, and then has too few registers.
        """
        for q in range(size):
            a0, a1, a2, a3 = vec(0.0), vec(0.0), vec(0.0), vec(0.0)
            a4, a5, a6 = vec(0.0), vec(0.0), vec(0.0)
            row, weight = rows + q, weights + q
            last = row + count * size
            while row < last:
                u, w = row & INDEX, weight & INDEX
                x0, x1 = scratch[u], scratch[u + size]
                v = scratch[w]
                mac(a6, v, x0)
                v = scratch[w + size]
                mac(a6, v, x1)
                mac(a5, v, x0)
                v = scratch[w + 2 * size]
                mac(a5, v, x1)
                mac(a4, v, x0)
                v = scratch[w + 3 * size]
                mac(a4, v, x1)
                mac(a3, v, x0)
                v = scratch[w + 4 * size]
                mac(a3, v, x1)
                mac(a2, v, x0)
                v = scratch[w + 5 * size]
                mac(a2, v, x1)
                mac(a1, v, x0)
                v = scratch[w + 6 * size]
                mac(a1, v, x1)
                mac(a0, v, x0)
                v = scratch[w + 7 * size]
                mac(a0, v, x1)
                row += 2 * size * one
                weight += 2 * size * one
            out = (to + q) & INDEX
            scratch[out] = a0
            scratch[out + size] = a1
            scratch[out + 2 * size] = a2
            scratch[out + 3 * size] = a3
            scratch[out + 4 * size] = a4
            scratch[out + 5 * size] = a5
            scratch[out + 6 * size] = a6

    @ti.func
    def convolve(scratch: ti.template(), plane, turned, height, width,
                 weights, places, before, sums, own, one, add):
        """One strip over the pixels of ``plane``, along the columns or, if
        ``turned``, along the rows.

        Around these, in :func:`whole` tiles, lies a border of zeros; the
        result goes to ``sums``, in whole tiles too, or is added to it. From
        ``own`` on there is room for ``ROWS + 1`` rows of products and as many
        as either side has.
        """
        wide = whole(width)
        length, across, along, beside = height, width, wide + 2 * halo, 1
        to_next, to_beside = wide, 1
        if turned:
            length, across, along, beside = width, height, 1, along
            to_next, to_beside = 1, wide
        rows = own + ROWS * size
        clear(scratch, rows + length * size, size)
        for part in range((across + TILE - 1) // TILE):
            first = part * TILE
            frm = plane + halo * along + first * beside
            for r in range(length):
                transform(scratch, frm + r * along, beside,
                          (rows + r * size) & INDEX)
            for block in range((length + ROWS - 1) // ROWS):
                top = block * ROWS
                begin = ti.max(top - before, 0)
                end = ti.min(top - before + places + ROWS - 1, length)
                place = begin - top + before  # of the first sum
                walk(scratch, rows + begin * size,
                     weights + (place + 1) * size, end - begin, own, one)
                for r in range(ti.min(ROWS, length - top)):
                    y0, y1, y2, y3 = change.summed(scratch,
                                                   (own + r * size) & INDEX)
                    t0 = (sums + (top + r) * to_next +
                          first * to_beside) & INDEX
                    by = to_beside & SIDE
                    t1, t2, t3 = t0 + by, t0 + 2 * by, t0 + 3 * by
                    if add:
                        y0, y1 = y0 + scratch[t0], y1 + scratch[t1]
                        y2, y3 = y2 + scratch[t2], y3 + scratch[t3]
                    scratch[t0], scratch[t1] = y0, y1
                    scratch[t2], scratch[t3] = y2, y3

    return SimpleNamespace(whole=whole, take=take, clear=clear, weigh=weigh,
                           convolve=convolve)
