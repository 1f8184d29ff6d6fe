"""Whole strips over planes of pixels whose channels are lanes."""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache
from types import SimpleNamespace

from .lane_transforms import transforms
from .lanes import INDEX, TILE, layout

__all__ = ['ROWS', 'channel_sums']

# Rows whose sums are kept in registers: a divisor of 224 / 4, 8, 16 and 32.
ROWS = 7


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

    @ti.func
    def clear(scratch: ti.template(), sums, length):
        """The rows of zeros before and behind those of a direction."""
        plane = sums + ROWS * size
        for i in range(ROWS * size):
            scratch[plane + i] = vec(0.0)
            scratch[plane + (ROWS + length) * size + i] = vec(0.0)

    @ti.func
    def convolve(x: ti.template(), x_at, C, out: ti.template(), out_at,
                 vectors, height, width, across_rows: ti.template(),
                 weights: ti.template(), at, places, before,
                 scratch: ti.template(), sums, bias, add):
        """One strip over a plane of pixels, ``C`` floats apart in ``x`` and
        ``vectors`` vectors in ``out``.
        """
        plane = sums + ROWS * size
        length, across, along, beside = height, width, width, 1
        if ti.static(across_rows):
            length, across, along, beside = width, height, 1, width
        for part in range((across + TILE - 1) // TILE):
            first = part * TILE
            for r in range(length):
                transform(x, x_at + r * along * C, beside * C, first - halo,
                          across, scratch,
                          (plane + (ROWS + r) * size) & INDEX)
            for block in range((length + ROWS - 1) // ROWS):
                top = block * ROWS
                walk(weights, at, ti.max(before - top - ROWS + 1, 0),
                     ti.min(before + length - top, places), scratch,
                     plane + (ROWS + top - before) * size, sums)
                for r in range(ti.min(ROWS, length - top)):
                    store(scratch, sums + r * size, out,
                          out_at + ((top + r) * along +
                                    first * beside) * vectors,
                          beside * vectors, across - first, bias, add)

    return SimpleNamespace(clear=clear, convolve=convolve)
