"""Transforms of the fused kernel: rows of tiles to products and back."""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache
from types import SimpleNamespace

from .lanes import MASKS, layout, movers

__all__ = ['transforms']


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
    def put_rows(scratch: ti.template(), values: ti.template(),
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
            put_rows(scratch, (last, x0, x1, x2, x3, first), ti.static(B),
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
            put_rows(scratch, (last2, last, x0, x1, x2, x3, first, first2),
                     ti.static(B), plane, height, at)

    @ti.func
    def to_spread(scratch: ti.template(), x0, x1, x2, x3, plane, height, at):
        """``A^T g`` of a row of tiles into row ``at`` of a plane."""
        put_rows(scratch, (x0, x1, x2, x3), ti.static(A_T), plane, height,
                 at)

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
