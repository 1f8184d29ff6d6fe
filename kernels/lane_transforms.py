"""Transforms of the fused kernel: rows of tiles to products and back."""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache
from types import SimpleNamespace

from .lanes import INDEX, layout, movers
from .vector_ops import add_product

__all__ = ['transforms']


@cache
def transforms(taps: int, lanes: int) -> SimpleNamespace:
    """Device functions between rows of tiles and planes of products."""
    import taichi as ti
    types = layout(taps, lanes)
    size, halo, pad, vec = types.size, types.halo, types.pad, types.vec
    A, G, B = types.matrices
    A_T = list(zip(*A, strict=True))
    mac = add_product(lanes)
    moves = movers(taps, lanes)
    before, after = moves.before, moves.after

    def every_other(row, first):
        return [value if j % 2 == first else 0
                for j, value in enumerate(row)]

    def paired(row):
        """What the sums or differences of two points are multiplied with."""
        return [row[0], row[1], row[3], row[5] if size == 8 else 0, row[-1]]

    @ti.func
    def dot(row: ti.template(), values: ti.template()):
        """The sum of vectors times constants, without those that are zero."""
        u = vec(0.0)
        for j, x in ti.static(enumerate(values)):
            if ti.static(abs(row[j]) == 1):  # no product
                u += row[j] * x
            elif ti.static(row[j] != 0):
                mac(u, row[j], x)
        return u

    @ti.func
    def put_rows(scratch: ti.template(), values: ti.template(),
                 rows: ti.template(), to):
        """One vector for each row of a matrix, from ``to`` on.

        Rows of the points ``p`` and ``-p`` differ in the sign of their odd
        entries.
        """
        scratch[to] = dot(ti.static(rows[0]), values)
        for q in ti.static(range(1, size - 1, 2)):
            even = dot(ti.static(every_other(rows[q], 0)), values)
            odd = dot(ti.static(every_other(rows[q], 1)), values)
            scratch[to + q] = even + odd
            scratch[to + (q + 1)] = even - odd
        scratch[to + (size - 1)] = dot(
            ti.static(rows[size - 1]), values)

    @ti.func
    def to_products(scratch: ti.template(), tiles, length,
                    mask: ti.template(), sides, floats: ti.template(), edge,
                    plane, height, clear):
        """``B x`` of all rows of tiles and their neighbours, as a plane.

        Zero outside the image (``mask`` from ``sides`` on). The borders need
        no ``clear`` where the plane was one of the same size.
        """
        left, right = mask[sides], mask[sides + 1]
        for r in range(length):
            row = (tiles + 4 * r) & INDEX
            beside = (edge + 4 * r) & INDEX
            to = (plane + (pad + r) * size) & INDEX
            x0, x1 = scratch[row], scratch[row + 1]
            x2, x3 = scratch[row + 2], scratch[row + 3]
            last = ti.select(left, before(x3, floats[beside]), 0.0)
            first = ti.select(right, after(x0, floats[beside + 2]), 0.0)
            if ti.static(halo == 1):
                put_rows(scratch, (last, x0, x1, x2, x3, first),
                         ti.static(B), to)
            else:
                last2 = ti.select(left, before(x2, floats[beside + 1]), 0.0)
                first2 = ti.select(right, after(x1, floats[beside + 3]), 0.0)
                put_rows(scratch,
                         (last2, last, x0, x1, x2, x3, first, first2),
                         ti.static(B), to)
        if clear:
            for at in range(pad * size):
                scratch[plane + at] = vec(0.0)
            for at in range((pad + length) * size, height * size):
                scratch[plane + at] = vec(0.0)

    @ti.func
    def to_spread(scratch: ti.template(), tiles, length, mask: ti.template(),
                  inside, plane, height, clear):
        """``A^T g`` of all rows of tiles, as a plane without borders before.

        Zero in lanes without a tile (``mask`` at ``inside``), for lanes are
        added up; those behind need no ``clear`` as for :func:`to_products`.
        """
        there = mask[inside]
        for r in range(length):
            row = (tiles + 4 * r) & INDEX
            x0 = ti.select(there, scratch[row], 0.0)
            x1 = ti.select(there, scratch[row + 1], 0.0)
            x2 = ti.select(there, scratch[row + 2], 0.0)
            x3 = ti.select(there, scratch[row + 3], 0.0)
            put_rows(scratch, (x0, x1, x2, x3), ti.static(A_T),
                     (plane + r * size) & INDEX)
        if clear:
            for at in range(length * size, height * size):
                scratch[plane + at] = vec(0.0)

    @ti.func
    def put_products(scratch: ti.template(), values: ti.template(), to):
        """``B x`` of one row of tiles with its neighbours."""
        put_rows(scratch, values, ti.static(B), to)

    @ti.func
    def put_weights(scratch: ti.template(), values: ti.template(), to):
        """``G w`` of one place of a strip."""
        put_rows(scratch, values, ti.static(G), to)

    @ti.func
    def summed(scratch: ti.template(), at):
        """``A m`` of the products from ``at`` on: a tile's four outputs."""
        m0 = scratch[at]
        m1 = scratch[at + 1]
        m2 = scratch[at + 2]
        m3 = scratch[at + 3]
        m4 = scratch[at + 4]
        m5 = scratch[at + 5]
        m6, m7 = vec(0.0), vec(0.0)
        if ti.static(size == 8):
            m6 = scratch[at + 6]
            m7 = scratch[at + 7]
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
    def from_products(scratch: ti.template(), result, length, tiles):
        """``A m`` of a plane of sums, as rows of tiles."""
        for r in range(length):
            y0, y1, y2, y3 = summed(scratch, (result + r * size) & INDEX)
            row = (tiles + 4 * r) & INDEX
            scratch[row], scratch[row + 1] = y0, y1
            scratch[row + 2], scratch[row + 3] = y2, y3

    return SimpleNamespace(to_products=to_products, to_spread=to_spread,
                           from_products=from_products,
                           put_products=put_products,
                           put_weights=put_weights, summed=summed)
