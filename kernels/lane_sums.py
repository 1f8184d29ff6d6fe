"""Walks of the fused kernel over the taps: convolution and correlation."""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache
from types import SimpleNamespace

from .lane_transforms import transforms
from .lanes import INDEX, ROWS, layout
from .vector_ops import add_product

__all__ = ['sums']


@cache
def sums(taps: int, lanes: int) -> SimpleNamespace:
    """Device functions that walk the taps."""
    import taichi as ti
    types = layout(taps, lanes)
    size, pad, vec = types.size, types.pad, types.vec
    oct_ = ti.types.vector(8, ti.f32)
    quad = ti.types.vector(4, ti.f32)
    mac = add_product(lanes)
    from_products = transforms(taps, lanes).from_products

    def place(row: int) -> int:
        """Where the weights of a row of two taps are: the second's first."""
        return (taps + row if row < taps else row - taps) * size

    @ti.func
    def convolve(weight: ti.template(), weight_at, table: ti.template(),
                 offset, first, last, scratch: ti.template(), plane, length,
                 result, result_height, add, tiles, finish: ti.template()):
        """Sums of the taps ``first..last-1``, sorted by falling offset.

        ``weight_at`` is where the weights of the first are. Where ``add`` is
        set they are added to what is there. ``result`` is a plane; with
        ``finish`` it is one block, whose rows go to ``tiles`` while a cache
        holds them.
        """
        begin = first
        end = first
        for block in range(result_height // ROWS):
            top = block * ROWS
            # Taps that touch no row of the block cost nothing.
            while begin < last and top + table[offset + begin] >= length:
                begin += 1
            while end < last and top + table[offset + end] + pad >= 0:
                end += 1
            for q in range(size):
                a0, a1, a2, a3 = vec(0.0), vec(0.0), vec(0.0), vec(0.0)
                a4, a5, a6, a7 = vec(0.0), vec(0.0), vec(0.0), vec(0.0)
                out = (result + q) & INDEX
                if ti.static(not finish):
                    out = (result + top * size + q) & INDEX
                if add:
                    a0, a1 = scratch[out], scratch[out + 1 * size]
                    a2, a3 = scratch[out + 2 * size], scratch[out + 3 * size]
                    a4, a5 = scratch[out + 4 * size], scratch[out + 5 * size]
                    a6, a7 = scratch[out + 6 * size], scratch[out + 7 * size]
                base = plane + (pad + top) * size + q
                t = begin
                while t < end:
                    at = (base + table[offset + t] * size) & INDEX
                    w = (weight_at + (t - first) * taps * size + q) & INDEX
                    if t + 1 < end and \
                            table[offset + t + 1] + taps == table[offset + t]:
                        at = (at - taps * size) & INDEX
                        for s in ti.static(range(ROWS + 2 * taps - 1)):
                            u = scratch[at + s * size]
                            if ti.static(0 <= s < 2 * taps):
                                mac(a0, weight[w + ti.static(place(s))], u)
                            if ti.static(0 <= s - 1 < 2 * taps):
                                mac(a1, weight[w + ti.static(place(s - 1))], u)
                            if ti.static(0 <= s - 2 < 2 * taps):
                                mac(a2, weight[w + ti.static(place(s - 2))], u)
                            if ti.static(0 <= s - 3 < 2 * taps):
                                mac(a3, weight[w + ti.static(place(s - 3))], u)
                            if ti.static(0 <= s - 4 < 2 * taps):
                                mac(a4, weight[w + ti.static(place(s - 4))], u)
                            if ti.static(0 <= s - 5 < 2 * taps):
                                mac(a5, weight[w + ti.static(place(s - 5))], u)
                            if ti.static(0 <= s - 6 < 2 * taps):
                                mac(a6, weight[w + ti.static(place(s - 6))], u)
                            if ti.static(0 <= s - 7 < 2 * taps):
                                mac(a7, weight[w + ti.static(place(s - 7))], u)
                        t += 2
                    else:
                        for s in ti.static(range(ROWS + taps - 1)):
                            u = scratch[at + s * size]
                            if ti.static(0 <= s < taps):
                                mac(a0, weight[w + s * size], u)
                            if ti.static(0 <= s - 1 < taps):
                                mac(a1, weight[w + (s - 1) * size], u)
                            if ti.static(0 <= s - 2 < taps):
                                mac(a2, weight[w + (s - 2) * size], u)
                            if ti.static(0 <= s - 3 < taps):
                                mac(a3, weight[w + (s - 3) * size], u)
                            if ti.static(0 <= s - 4 < taps):
                                mac(a4, weight[w + (s - 4) * size], u)
                            if ti.static(0 <= s - 5 < taps):
                                mac(a5, weight[w + (s - 5) * size], u)
                            if ti.static(0 <= s - 6 < taps):
                                mac(a6, weight[w + (s - 6) * size], u)
                            if ti.static(0 <= s - 7 < taps):
                                mac(a7, weight[w + (s - 7) * size], u)
                        t += 1
                scratch[out] = a0
                scratch[out + 1 * size] = a1
                scratch[out + 2 * size] = a2
                scratch[out + 3 * size] = a3
                scratch[out + 4 * size] = a4
                scratch[out + 5 * size] = a5
                scratch[out + 6 * size] = a6
                scratch[out + 7 * size] = a7
            if ti.static(finish):
                from_products(scratch, result, ti.min(ROWS, length - top),
                              (tiles + 4 * top) & INDEX)

    @ti.func
    def total(v):
        """The sum of the lanes."""
        v4 = quad([v[i] for i in ti.static(range(4))])
        if ti.static(lanes > 4):
            v8 = oct_([v[i] for i in ti.static(range(8))])
            if ti.static(lanes == 16):
                v8 += oct_(
                    [v[8 + i] for i in ti.static(range(8))])
            v4 = quad([v8[i] for i in ti.static(range(4))]) + quad(
                [v8[4 + i] for i in ti.static(range(4))])
        return (v4[0] + v4[2]) + (v4[1] + v4[3])

    @ti.func
    def put(grads: ti.template(), at, v, add):
        """Not ``+=``, which would be atomic."""
        before = 0.0
        if add:
            before = grads[at]
        grads[at] = before + total(v)

    @ti.func
    def correlate(table: ti.template(), offset, first, last,
                  scratch: ti.template(), plane, length, spread_plane,
                  grads: ti.template(), to, add):
        """Gradients of the products' weights of taps ``first..last-1``."""
        for t in range(first, last):
            shift = table[offset + t]
            low = ti.max(0, 1 - taps - shift)
            high = ti.min(length, length - shift)
            for q in range(size):
                d0, d1, d2 = vec(0.0), vec(0.0), vec(0.0)
                d3, d4 = vec(0.0), vec(0.0)
                u = plane + (pad + shift) * size + q
                g = spread_plane + q
                for part in range((high - low + 3) // 4):
                    v = (g + (low + part * 4) * size) & INDEX
                    w = (u + (low + part * 4) * size) & INDEX
                    for i in ti.static(range(4)):
                        z = scratch[v + i * size]
                        mac(d0, z, scratch[w + i * size])
                        mac(d1, z, scratch[w + (i + 1) * size])
                        mac(d2, z, scratch[w + (i + 2) * size])
                        if ti.static(taps == 5):
                            mac(d3, z, scratch[w + (i + 3) * size])
                            mac(d4, z, scratch[w + (i + 4) * size])
                at = to + t * taps * size + q
                put(grads, at, d0, add)
                put(grads, at + size, d1, add)
                put(grads, at + 2 * size, d2, add)
                if ti.static(taps == 5):
                    put(grads, at + 3 * size, d3, add)
                    put(grads, at + 4 * size, d4, add)

    return SimpleNamespace(convolve=convolve, correlate=correlate, total=total)
