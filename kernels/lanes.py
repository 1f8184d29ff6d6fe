"""Vector types of the fused kernel, and the way in and out of its layout."""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache
from types import SimpleNamespace

from .cook_toom import matrices

__all__ = ['TILE', 'ROWS', 'MASKS', 'layout', 'movers']

TILE = 4  # outputs of a tile across the shift
ROWS = 8  # output rows whose sums are kept in registers
# Of lanes, for each vector: inside the image at four places of a tile, with a
# neighbour before and behind, with one before and behind in another vector.
MASKS = 8


@cache
def layout(taps: int, lanes: int, unit: int) -> SimpleNamespace:
    """Sizes and Taichi types.

    A row of *tiles*, ``TILE`` neighbours across the shift, is held one tile a
    lane. A *plane* in the scratch has one such row for each place along the
    shift, ``pad`` rows of zeros before and after, and that ``size`` times:
    once for each product of the short convolution.

    Args:
        taps (int): ``N``, 3 or 5.
        lanes (int): Vector width, 8 or 16.
        unit (int): Floats that are moved at a time, 4 or 8.
    """
    import taichi as ti
    vector, array = ti.types.vector, ti.types.ndarray
    # A row of tiles down the columns, and so many columns along the rows.
    many_v = vector(4 * lanes, ti.f32)
    many_h = vector(unit * lanes, ti.f32)
    vec = vector(lanes, ti.f32)
    return SimpleNamespace(
        taps=taps, lanes=lanes, unit=unit, matrices=matrices(TILE, taps),
        size=TILE + taps - 1, halo=taps // 2, pad=ROWS + taps - 2, vec=vec,
        many_v=many_v, many_h=many_h,
        Floats=array(dtype=ti.f32, ndim=1), Ints=array(dtype=ti.i32, ndim=1),
        Vectors=array(dtype=vec, ndim=1),
        Masks=array(dtype=vector(lanes, ti.i32), ndim=1),
        Units=array(dtype=vector(unit, ti.f32), ndim=1),
        ManyV=array(dtype=many_v, ndim=1), ManyH=array(dtype=many_h, ndim=1))


@cache
def movers(taps: int, lanes: int, unit: int) -> SimpleNamespace:
    """Device functions between tensors and rows of tiles."""
    import taichi as ti
    types = layout(taps, lanes, unit)
    vec, vec_unit = types.vec, ti.types.vector(unit, ti.f32)
    many_v, many_h = types.many_v, types.many_h
    per_row = 4 * lanes // unit

    @ti.func
    def fetch(source: ti.template(), base, d, H, WU, images, step, first,
              units: ti.template(), stage, edge):
        """Rows of tiles as they lie in memory, from tile ``first`` on.

        For ``d = 0`` a unit holds columns of tiles, for ``d = 1`` as many
        columns of one row of a tile. Images are ``step`` apart, and only
        where they are whole are there several. Where a row of tiles goes on,
        its neighbours come to ``edge``: for ``d = 0`` the unit before and
        the one behind, for ``d = 1`` two rows before and two behind, those
        next to the tiles first.
        """
        if d == 0:
            begin = first * 4 // unit
            high = ti.min(begin + per_row, WU)
            for r in range(H):
                for p in range(images):
                    to = stage + r * per_row + p * WU - begin
                    frm = base + p * step + r * WU
                    for t in range(begin, high):
                        units[to + t] = source[frm + t]
            for r in range(H):
                if begin > 0:
                    units[edge + 2 * r] = source[base + r * WU + begin - 1]
                if high < WU:
                    units[edge + 2 * r + 1] = source[base + r * WU + high]
        else:
            tiles = (H + 3) // 4
            for r in range(WU * 4):
                j = r % 4
                high = ti.min(first + lanes, (H - j + 3) // 4)
                for p in range(images):
                    to = stage + r * lanes + p * tiles - first
                    frm = base + p * step + r // 4 + j * WU
                    for t in range(first, high):
                        units[to + t] = source[frm + t * 4 * WU]
            above, below = first * 4 - 1, (first + lanes) * 4
            for c in range(WU):
                at = edge + c * 4
                if first > 0:
                    units[at] = source[base + above * WU + c]
                    units[at + 1] = source[base + (above - 1) * WU + c]
                if below < H:
                    units[at + 2] = source[base + below * WU + c]
                    units[at + 3] = vec_unit(0.0)
                    if below + 1 < H:
                        units[at + 3] = source[base + (below + 1) * WU + c]

    @ti.func
    def unpack_v(rows_v: ti.template(), stage, block, i, inside):
        """A row of tiles down the columns: a vector for each place."""
        v = rows_v[stage * unit // (4 * lanes) + block * unit + i]
        x0 = vec([v[4 * lane] for lane in ti.static(range(lanes))])
        x1 = vec([v[4 * lane + 1] for lane in ti.static(range(lanes))])
        x2 = vec([v[4 * lane + 2] for lane in ti.static(range(lanes))])
        x3 = vec([v[4 * lane + 3] for lane in ti.static(range(lanes))])
        return (ti.select(inside, x0, 0.0), ti.select(inside, x1, 0.0),
                ti.select(inside, x2, 0.0), ti.select(inside, x3, 0.0))

    @ti.func
    def unpack_h(rows_h: ti.template(), stage, block, mask: ti.template(),
                 group, scratch: ti.template(), rows):
        """``unit`` rows of tiles along the rows, into the scratch."""
        for j in range(4):
            inside = mask[group * MASKS + j]
            v = rows_h[stage // lanes + block * 4 + j]
            for i in ti.static(range(unit)):
                u = vec([v[unit * lane + i]
                         for lane in ti.static(range(lanes))])
                scratch[rows + i * 4 + j] = ti.select(inside, u, 0.0)

    @ti.func
    def pack_v(x0, x1, x2, x3, rows_v: ti.template(), stage, block, i):
        """The reverse of :func:`unpack_v`, without the mask."""
        rows_v[stage * unit // (4 * lanes) + block * unit + i] = many_v(
            [x[lane] for lane in ti.static(range(lanes))
             for x in ti.static((x0, x1, x2, x3))])

    @ti.func
    def pack_h(scratch: ti.template(), rows, rows_h: ti.template(), stage,
               block):
        """The reverse of :func:`unpack_h`, without the mask."""
        for j in range(4):
            b0 = scratch[rows + j]
            b1 = scratch[rows + 4 + j]
            b2 = scratch[rows + 8 + j]
            b3 = scratch[rows + 12 + j]
            if ti.static(unit == 4):
                rows_h[stage // lanes + block * 4 + j] = many_h([
                    b[lane] for lane in ti.static(range(lanes))
                    for b in ti.static((b0, b1, b2, b3))
                ])
            else:
                b4 = scratch[rows + 16 + j]
                b5 = scratch[rows + 20 + j]
                b6 = scratch[rows + 24 + j]
                b7 = scratch[rows + 28 + j]
                rows_h[stage // lanes + block * 4 + j] = many_h([
                    b[lane] for lane in ti.static(range(lanes))
                    for b in ti.static((b0, b1, b2, b3, b4, b5, b6, b7))
                ])

    @ti.func
    def move(units: ti.template(), frm, target: ti.template(), to, add):
        v = units[frm]
        if add:
            v += target[to]
        target[to] = v

    @ti.func
    def deliver(units: ti.template(), stage, d, H, WU, images, step, first,
                target: ti.template(), base, add):
        """The reverse of :func:`fetch`, without the edges."""
        if d == 0:
            begin = first * 4 // unit
            for r in range(H):
                for p in range(images):
                    frm = stage + r * per_row + p * WU - begin
                    to = base + p * step + r * WU
                    for t in range(begin, ti.min(begin + per_row, WU)):
                        move(units, frm + t, target, to + t, add)
        else:
            tiles = (H + 3) // 4
            for r in range(WU * 4):
                j = r % 4
                high = ti.min(first + lanes, (H - j + 3) // 4)
                for p in range(images):
                    frm = stage + r * lanes + p * tiles - first
                    to = base + p * step + r // 4 + j * WU
                    for t in range(first, high):
                        move(units, frm + t, target, to + t * 4 * WU, add)

    return SimpleNamespace(fetch=fetch, unpack_v=unpack_v, unpack_h=unpack_h,
                           pack_v=pack_v, pack_h=pack_h, deliver=deliver)
