"""The way out of the fused kernel's layout: rows of tiles to tensors.

Rows of a multiple of eight floats are written eight floats at a time, others
four: so many stores may wait for their lines of memory, however wide they
are.
"""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache
from types import SimpleNamespace

from .lanes import INDEX, TILE, layout, movers, putter

__all__ = ['SPANS', 'stores']

SPANS = (TILE, 2 * TILE)  # floats that are written together


@cache
def stores(taps: int, lanes: int, span: int) -> SimpleNamespace:
    """Device functions from rows of tiles to tensors.

    Arguments are those of :func:`~.lanes.movers`; ``target`` has ``span``
    floats an entry. With ``add`` they are added to what is there.

    Args:
        taps (int): ``N``, 3 or 5.
        lanes (int): Vector width, 8 or 16.
        span (int): Of :data:`SPANS`. For eight, lanes ``2 k`` and ``2 k + 1``
            have tiles that follow each other in a row of the tensor.
    """
    import taichi as ti
    types, move = layout(taps, lanes), movers(taps, lanes)
    vec, put, blocks = types.vec, putter(span), lanes // 4
    quads, look_up, scatter = move.quads, move.look_up, move.scatter

    @ti.func
    def rows(scratch: ti.template(), at, step: ti.template(), there, add):
        """Four vectors ``step`` apart.

        Where they are added it is ``there`` once: others add nothing.
        """
        x0, x1 = scratch[at], scratch[at + step]
        x2, x3 = scratch[at + 2 * step], scratch[at + 3 * step]
        if add:
            x0, x1 = ti.select(there, x0, 0.0), ti.select(there, x1, 0.0)
            x2, x3 = ti.select(there, x2, 0.0), ti.select(there, x3, 0.0)
        return x0, x1, x2, x3

    @ti.func
    def paired(a, b, half: ti.template(), one):
        """Quads of ``a``, each with that of ``b`` behind, of half of them."""
        first = ti.static(half * lanes // 2)
        return one * vec([v[first + 4 * i + j]
                          for i in ti.static(range(blocks // 2))
                          for v in ti.static((a, b))
                          for j in ti.static(range(4))])

    @ti.func
    def put_pairs(a: ti.template(), b: ti.template(), target: ti.template(),
                  to, spots: ti.template(), add, one):
        """Quads of ``a`` with those of ``b`` behind, the last lane first.

        Those of all lanes in four vectors, or of every second one in two.
        """
        step = ti.static(4 // len(a))
        first = (to >> 1) & INDEX
        for block in ti.static(range(blocks - 1, -1, -1)):
            for k in ti.static(range(len(a) - 1, -1, -1)):
                put(paired(a[k], b[k], ti.static(2 * block // blocks), one),
                    ti.static(block % (blocks // 2) * span), target,
                    first + (spots[4 * block + k * step] >> 1), add)

    @ti.func
    def store_v(scratch: ti.template(), tiles, length, places: ti.template(),
                at, mask: ti.template(), inside, target: ti.template(), base,
                width, add, one):
        """The reverse of :func:`~.lanes.movers`' ``load_v``."""
        spots = look_up(places, at)
        for r in range(length):
            x0, x1, x2, x3 = rows(scratch, (tiles + 4 * r) & INDEX, 1,
                                  mask[inside], add)
            if ti.static(span == TILE):
                scatter(x0, x1, x2, x3, target, base + r * width,
                        ti.static(spots), add, one)
            else:
                p0, p1, p2, p3 = quads(x0, x1, x2, x3, one)
                put_pairs((p0, p2), (p1, p3), target, base + r * width,
                          ti.static(spots), add, one)

    @ti.func
    def store_h(scratch: ti.template(), tiles, places: ti.template(), at,
                mask: ti.template(), inside, target: ti.template(), base,
                width, add, one):
        """The reverse of :func:`~.lanes.movers`' ``load_h``."""
        for last in range(4):
            j = 3 - last
            there = mask[inside + j]
            spots = look_up(places, at + j * lanes)
            if ti.static(span == TILE):
                for c in range(width):
                    x0, x1, x2, x3 = rows(
                        scratch, (tiles + 16 * c + j) & INDEX, 4, there, add)
                    scatter(x0, x1, x2, x3, target, base + c,
                            ti.static(spots), add, one)
            else:
                for c in range(width // 2):
                    row = (tiles + 32 * c + j) & INDEX
                    x0, x1, x2, x3 = rows(scratch, row, 4, there, add)
                    y0, y1, y2, y3 = rows(scratch, row + 16, 4, there, add)
                    p0, p1, p2, p3 = quads(x0, x1, x2, x3, one)
                    r0, r1, r2, r3 = quads(y0, y1, y2, y3, one)
                    put_pairs((p0, p1, p2, p3), (r0, r1, r2, r3), target,
                              base + 2 * c, ti.static(spots), add, one)

    return SimpleNamespace(store_v=store_v, store_h=store_h)
