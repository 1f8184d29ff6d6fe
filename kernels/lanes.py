"""Vector types of the fused kernel, and the way in and out of its layout."""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache
from types import SimpleNamespace

from .cook_toom import matrices

__all__ = ['TILE', 'ROWS', 'layout', 'movers']

TILE = 4  # outputs of a tile across the shift
ROWS = 8  # output rows whose sums are kept in registers


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
    size, halo, vec = types.size, types.halo, types.vec
    many_v, many_h = types.many_v, types.many_h
    per_row = 4 * lanes // unit

    @ti.func
    def fetch(source: ti.template(), base, d, H, WU, images, step, first,
              units: ti.template(), stage):
        """Rows of tiles as they lie in memory, from tile ``first`` on.

        For ``d = 0`` a unit holds columns of tiles, for ``d = 1`` as many
        columns of one row of a tile. Images are ``step`` apart, and only
        where they are whole are there several.
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
        else:
            for r in range(WU * 4):
                j = r % 4
                tiles = (H + 3) // 4
                high = ti.min(first + lanes, (H - j + 3) // 4)
                for p in range(images):
                    to = stage + r * lanes + p * tiles - first
                    frm = base + p * step + r // 4 + j * WU
                    for t in range(first, high):
                        units[to + t] = source[frm + t * 4 * WU]

    @ti.func
    def unpack(rows_v: ti.template(), rows_h: ti.template(), stage, d, block,
               mask: ti.template(), group, scratch: ti.template(), rows):
        """A block of rows of tiles: a vector for each place in the tile."""
        at = group * 10
        if d == 0:
            inside = mask[at]
            for i in range(unit):
                v = rows_v[stage * unit // (4 * lanes) + block * unit + i]
                for j in ti.static(range(4)):
                    u = vec([v[4 * lane + j]
                             for lane in ti.static(range(lanes))])
                    scratch[rows + halo + i * size + j] = ti.select(
                        inside, u, 0.0)
        else:
            for j in range(4):
                inside = mask[at + j]
                v = rows_h[stage // lanes + block * 4 + j]
                for i in ti.static(range(unit)):
                    u = vec([v[unit * lane + i]
                             for lane in ti.static(range(lanes))])
                    scratch[rows + halo + i * size + j] = ti.select(
                        inside, u, 0.0)

    @ti.func
    def pack(scratch: ti.template(), rows, d, block, rows_v: ti.template(),
             rows_h: ti.template(), stage):
        """The reverse of :func:`unpack`, without the mask."""
        if d == 0:
            for i in range(unit):
                b0 = scratch[rows + i * 4]
                b1 = scratch[rows + i * 4 + 1]
                b2 = scratch[rows + i * 4 + 2]
                b3 = scratch[rows + i * 4 + 3]
                rows_v[stage * unit // (4 * lanes) + block * unit + i] = \
                    many_v([b[lane] for lane in ti.static(range(lanes))
                            for b in ti.static((b0, b1, b2, b3))])
        else:
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
                skip, target: ti.template(), base, add):
        """The reverse of :func:`fetch`.

        Without ``skip`` tiles at both ends, unless the image ends there.
        """
        if d == 0:
            begin = first * 4 // unit
            low, high = begin + skip * 4 // unit, WU
            if first == 0:
                low = 0
            if begin + per_row < WU:
                high = begin + per_row - skip * 4 // unit
            for r in range(H):
                for p in range(images):
                    frm = stage + r * per_row + p * WU - begin
                    to = base + p * step + r * WU
                    for t in range(low, high):
                        move(units, frm + t, target, to + t, add)
        else:
            for r in range(WU * 4):
                j = r % 4
                tiles = (H + 3) // 4
                low, high = first + skip, (H - j + 3) // 4
                if first == 0:
                    low = 0
                if first + lanes < tiles:
                    high = first + lanes - skip
                for p in range(images):
                    frm = stage + r * lanes + p * tiles - first
                    to = base + p * step + r // 4 + j * WU
                    for t in range(low, high):
                        move(units, frm + t, target, to + t * 4 * WU, add)

    return SimpleNamespace(fetch=fetch, unpack=unpack, pack=pack,
                           deliver=deliver)
