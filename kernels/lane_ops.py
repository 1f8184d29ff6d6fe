"""Arithmetic of the fused kernel, made for one small kernel and width."""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache
from types import SimpleNamespace

from .lanes import MASKS, ROWS, layout, movers

__all__ = ['transforms', 'sums']


@cache
def transforms(taps: int, lanes: int, unit: int) -> SimpleNamespace:
    """Device functions between rows of tiles and planes of products."""
    import taichi as ti
    types = layout(taps, lanes, unit)
    size, halo, pad, vec = types.size, types.halo, types.pad, types.vec
    A, _, B = types.matrices
    A_T = list(zip(*A, strict=True))
    moves = movers(taps, lanes, unit)
    pack_v, pack_h = moves.pack_v, moves.pack_h
    unpack_v, unpack_h = moves.unpack_v, moves.unpack_h

    def every_other(row, first):
        return [value if j % 2 == first else 0
                for j, value in enumerate(row)]

    def paired(row):
        """What the sums or differences of two points are multiplied with."""
        return [row[0], row[1], row[3], row[5] if size == 8 else 0, row[-1]]

    @ti.func
    def before(v):
        """Of each lane the value of the one before."""
        return vec([0.0] + [v[lane] for lane in ti.static(range(lanes - 1))])

    @ti.func
    def after(v):
        """Of each lane the value of the next."""
        return vec([v[lane + 1] for lane in ti.static(range(lanes - 1))] +
                   [0.0])

    @ti.func
    def dot(row: ti.template(), values: ti.template()):
        """The sum of vectors times constants, without those that are zero."""
        u = vec(0.0)
        for j, x in ti.static(enumerate(values)):
            if ti.static(row[j] != 0):
                u += row[j] * x
        return u

    @ti.func
    def spread(scratch: ti.template(), values: ti.template(),
               rows: ti.template(), plane, height, at):
        """One vector for each row of a matrix, into row ``at`` of a plane.

        Rows of the points ``p`` and ``-p`` differ in the sign of their odd
        entries.
        """
        scratch[plane + at] = dot(ti.static(rows[0]), values)
        for q in ti.static(range(1, size - 1, 2)):
            even = dot(ti.static(every_other(rows[q], 0)), values)
            odd = dot(ti.static(every_other(rows[q], 1)), values)
            scratch[plane + q * height + at] = even + odd
            scratch[plane + (q + 1) * height + at] = even - odd
        scratch[plane + (size - 1) * height + at] = dot(
            ti.static(rows[size - 1]), values)

    @ti.func
    def to_products(scratch: ti.template(), x0, x1, x2, x3, near, far,
                    mask: ti.template(), lane, floats: ti.template(), edge,
                    step, gap, plane, height, at):
        """``B x`` of a row of tiles and their neighbours.

        Zero outside the image; into row ``at`` of a plane. Neighbours in
        other vectors are read at ``edge``: the next ones before and, ``gap``
        further, behind, those after them by ``step`` outwards.
        """
        left, right = mask[lane + 4], mask[lane + 5]
        last = ti.select(left, before(x3), 0.0)
        first = ti.select(right, after(x0), 0.0)
        if near:
            last = ti.select(mask[lane + 6], vec(floats[edge]), last)
        if far:
            first = ti.select(mask[lane + 7], vec(floats[edge + gap]), first)
        if ti.static(halo == 1):
            spread(scratch, (last, x0, x1, x2, x3, first), ti.static(B),
                   plane, height, at)
        else:
            last2 = ti.select(left, before(x2), 0.0)
            first2 = ti.select(right, after(x1), 0.0)
            if near:
                last2 = ti.select(mask[lane + 6], vec(floats[edge - step]),
                                  last2)
            if far:
                first2 = ti.select(mask[lane + 7],
                                   vec(floats[edge + gap + ti.abs(step)]),
                                   first2)
            spread(scratch, (last2, last, x0, x1, x2, x3, first, first2),
                   ti.static(B), plane, height, at)

    @ti.func
    def to_spread(scratch: ti.template(), x0, x1, x2, x3, plane, height, at):
        """``A^T g`` of a row of tiles into row ``at`` of a plane."""
        spread(scratch, (x0, x1, x2, x3), ti.static(A_T), plane, height, at)

    @ti.func
    def clear_borders(scratch: ti.template(), plane, height, length):
        """Zeros before and after the rows of a plane."""
        for q in range(size):
            for r in range(pad):
                scratch[plane + q * height + r] = vec(0.0)
            for r in range(pad + length, height):
                scratch[plane + q * height + r] = vec(0.0)

    @ti.func
    def to_planes(rows_v: ti.template(), rows_h: ti.template(), stage, d,
                  blocks, mask: ti.template(), group, scratch: ti.template(),
                  rows, plane, height, length, floats: ti.template(), edge,
                  near, far, spread: ti.template(), spread_plane,
                  spread_height, want_plane, want_spread, clear):
        """What was fetched, as a plane of products' inputs ``B x``.

        With ``spread`` also as one of ``A^T g``, each if it is wanted. Rows
        of tiles go on before and behind where ``near`` and ``far`` say so.
        The borders need no ``clear`` where the plane was one of the same
        size.
        """
        lane = group * MASKS
        for block in range(blocks):
            if d == 1:
                unpack_h(rows_h, stage, block, mask, group, scratch, rows)
            for i in range(unit):
                x0, x1, x2, x3 = vec(0.0), vec(0.0), vec(0.0), vec(0.0)
                at = block * unit + i
                # The unit before ends with the neighbour, rows start with it.
                beside, step, gap = edge + (2 * at + 1) * unit - 1, 1, 1
                if d == 0:
                    x0, x1, x2, x3 = unpack_v(rows_v, stage, block, i,
                                              mask[lane])
                else:
                    row = rows + i * 4
                    x0, x1 = scratch[row], scratch[row + 1]
                    x2, x3 = scratch[row + 2], scratch[row + 3]
                    beside = edge + block * 4 * unit + i
                    step, gap = -unit, 2 * unit
                if ti.static(spread):
                    if want_spread:
                        to_spread(scratch, x0, x1, x2, x3, spread_plane,
                                  spread_height, at)
                if want_plane:
                    to_products(scratch, x0, x1, x2, x3, near, far, mask,
                                lane, floats, beside, step, gap, plane,
                                height, pad + at)
        if want_plane and (clear or length % unit != 0):
            clear_borders(scratch, plane, height, length)
        if ti.static(spread):
            for q in range(size):
                for r in range(length, spread_height):
                    scratch[spread_plane + q * spread_height + r] = vec(0.0)

    @ti.func
    def inverse(scratch: ti.template(), result, height, at):
        """``A m`` of one row of tiles: ``TILE`` vectors."""
        m0 = scratch[result + at]
        m1 = scratch[result + height + at]
        m2 = scratch[result + 2 * height + at]
        m3 = scratch[result + 3 * height + at]
        m4 = scratch[result + 4 * height + at]
        m5 = scratch[result + 5 * height + at]
        m6, m7 = vec(0.0), vec(0.0)
        if ti.static(size == 8):
            m6 = scratch[result + 6 * height + at]
            m7 = scratch[result + 7 * height + at]
        last = m5
        if ti.static(size == 8):
            last = m7
        s1, s2, s3 = m1 + m2, m3 + m4, m5 + m6
        d1, d2, d3 = m1 - m2, m3 - m4, m5 - m6
        return (dot(ti.static(paired(A[0])), (m0, s1, s2, s3, last)),
                dot(ti.static(paired(A[1])), (m0, d1, d2, d3, last)),
                dot(ti.static(paired(A[2])), (m0, s1, s2, s3, last)),
                dot(ti.static(paired(A[3])), (m0, d1, d2, d3, last)))

    @ti.func
    def from_plane(scratch: ti.template(), result, height, d, blocks, rows,
                   rows_v: ti.template(), rows_h: ti.template(), stage):
        """``A m`` of a plane of sums, ready to be delivered."""
        for block in range(blocks):
            for i in range(unit):
                x0, x1, x2, x3 = inverse(scratch, result, height,
                                         block * unit + i)
                if d == 0:
                    pack_v(x0, x1, x2, x3, rows_v, stage, block, i)
                else:
                    row = rows + i * 4
                    scratch[row] = x0
                    scratch[row + 1] = x1
                    scratch[row + 2] = x2
                    scratch[row + 3] = x3
            if d == 1:
                pack_h(scratch, rows, rows_h, stage, block)

    return SimpleNamespace(to_planes=to_planes, from_plane=from_plane)


@cache
def sums(taps: int, lanes: int, unit: int) -> SimpleNamespace:
    """Device functions that walk the taps."""
    import taichi as ti
    types = layout(taps, lanes, unit)
    size, pad, vec = types.size, types.pad, types.vec
    oct_ = ti.types.vector(8, ti.f32)
    quad = ti.types.vector(4, ti.f32)

    def place(row: int) -> int:
        """Where the weights of a row of two taps are: the second's first."""
        return (taps + row if row < taps else row - taps) * size

    @ti.func
    def convolve(weight: ti.template(), weight_at, table: ti.template(),
                 offset, first, last, scratch: ti.template(), plane, height,
                 length, result, result_height, add):
        """Sums of the taps ``first..last-1``, sorted by falling offset.

        ``weight_at`` is where the weights of the first are. Where ``add`` is
        set they are added to what is there.
        """
        for q in range(size):
            begin = first
            end = first
            for block in range(result_height // ROWS):
                top = block * ROWS
                # Taps that touch no row of the block cost nothing.
                while begin < last and \
                        top + table[offset + begin] >= length:
                    begin += 1
                while end < last and \
                        top + table[offset + end] + pad >= 0:
                    end += 1
                a0, a1, a2, a3 = vec(0.0), vec(0.0), vec(0.0), vec(0.0)
                a4, a5, a6, a7 = vec(0.0), vec(0.0), vec(0.0), vec(0.0)
                out = result + q * result_height + top
                if add:
                    a0, a1 = scratch[out], scratch[out + 1]
                    a2, a3 = scratch[out + 2], scratch[out + 3]
                    a4, a5 = scratch[out + 4], scratch[out + 5]
                    a6, a7 = scratch[out + 6], scratch[out + 7]
                base = plane + q * height + pad + top
                t = begin
                while t < end:
                    at = base + table[offset + t]
                    w = weight_at + (t - first) * taps * size + q
                    if t + 1 < end and \
                            table[offset + t + 1] + taps == table[offset + t]:
                        at -= taps
                        for s in ti.static(range(ROWS + 2 * taps - 1)):
                            u = scratch[at + s]
                            if ti.static(0 <= s < 2 * taps):
                                a0 += weight[w + ti.static(place(s))] * u
                            if ti.static(0 <= s - 1 < 2 * taps):
                                a1 += weight[w + ti.static(place(s - 1))] * u
                            if ti.static(0 <= s - 2 < 2 * taps):
                                a2 += weight[w + ti.static(place(s - 2))] * u
                            if ti.static(0 <= s - 3 < 2 * taps):
                                a3 += weight[w + ti.static(place(s - 3))] * u
                            if ti.static(0 <= s - 4 < 2 * taps):
                                a4 += weight[w + ti.static(place(s - 4))] * u
                            if ti.static(0 <= s - 5 < 2 * taps):
                                a5 += weight[w + ti.static(place(s - 5))] * u
                            if ti.static(0 <= s - 6 < 2 * taps):
                                a6 += weight[w + ti.static(place(s - 6))] * u
                            if ti.static(0 <= s - 7 < 2 * taps):
                                a7 += weight[w + ti.static(place(s - 7))] * u
                        t += 2
                    else:
                        for s in ti.static(range(ROWS + taps - 1)):
                            u = scratch[at + s]
                            if ti.static(0 <= s < taps):
                                a0 += weight[w + (s) * size] * u
                            if ti.static(0 <= s - 1 < taps):
                                a1 += weight[w + (s - 1) * size] * u
                            if ti.static(0 <= s - 2 < taps):
                                a2 += weight[w + (s - 2) * size] * u
                            if ti.static(0 <= s - 3 < taps):
                                a3 += weight[w + (s - 3) * size] * u
                            if ti.static(0 <= s - 4 < taps):
                                a4 += weight[w + (s - 4) * size] * u
                            if ti.static(0 <= s - 5 < taps):
                                a5 += weight[w + (s - 5) * size] * u
                            if ti.static(0 <= s - 6 < taps):
                                a6 += weight[w + (s - 6) * size] * u
                            if ti.static(0 <= s - 7 < taps):
                                a7 += weight[w + (s - 7) * size] * u
                        t += 1
                scratch[out] = a0
                scratch[out + 1] = a1
                scratch[out + 2] = a2
                scratch[out + 3] = a3
                scratch[out + 4] = a4
                scratch[out + 5] = a5
                scratch[out + 6] = a6
                scratch[out + 7] = a7

    @ti.func
    def total(v):
        """The sum of the lanes."""
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
                  scratch: ti.template(), plane, height, length, spread_plane,
                  spread_height, grads: ti.template(), to, add):
        """Gradients of the products' weights of taps ``first..last-1``."""
        for t in range(first, last):
            shift = table[offset + t]
            low = ti.max(0, 1 - taps - shift)
            high = ti.min(length, length - shift)
            for q in range(size):
                d0, d1, d2 = vec(0.0), vec(0.0), vec(0.0)
                d3, d4 = vec(0.0), vec(0.0)
                u = plane + q * height + pad + shift
                g = spread_plane + q * spread_height
                for part in range((high - low + 3) // 4):
                    r = low + part * 4
                    for i in ti.static(range(4)):
                        z = scratch[g + r + i]
                        d0 += z * scratch[u + r + i]
                        d1 += z * scratch[u + r + (i + 1)]
                        d2 += z * scratch[u + r + (i + 2)]
                        if ti.static(taps == 5):
                            d3 += z * scratch[u + r + (i + 3)]
                            d4 += z * scratch[u + r + (i + 4)]
                at = to + t * taps * size + q
                put(grads, at, d0, add)
                put(grads, at + size, d1, add)
                put(grads, at + 2 * size, d2, add)
                if ti.static(taps == 5):
                    put(grads, at + 3 * size, d3, add)
                    put(grads, at + 4 * size, d4, add)

    return SimpleNamespace(convolve=convolve, correlate=correlate)
