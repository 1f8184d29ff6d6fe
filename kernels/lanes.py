"""Vector types of the fused kernel, and the way into its layout.

Everything moves as *quads*, four neighbours of a row. A vector's lanes each
name one (``places``), so images that share vectors, the end of a row and the
two directions differ in a table only. Down the columns a quad is a tile; along
the rows the quads of four columns are read from each of a tile's rows. Lanes
without a tile, and rows below the image, name the last that there is: what
they write there (:mod:`.lane_stores`) is written over, for the last lane and
row write first.
"""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache
from types import SimpleNamespace

from .cook_toom import matrices

__all__ = ['TILE', 'ROWS', 'MASKS', 'layout', 'putter', 'movers']

TILE = 4  # outputs of a tile across the shift, and floats that move together
ROWS = 8  # output rows whose sums are kept in registers
# Of lanes, for each vector: inside the image at four places of a tile, with a
# neighbour before and behind.
MASKS = 6
# Of a number below 2**30 nothing is lost, and LLVM sees that adding constants
# cannot overflow: they become part of addresses instead of three instructions.
INDEX = 2**30 - 1


@cache
def layout(taps: int, lanes: int) -> SimpleNamespace:
    """Sizes and Taichi types.

    A row of *tiles*, ``TILE`` neighbours across the shift, is held one tile a
    lane. A *plane* in the scratch has one such row for each place along the
    shift, ``pad`` rows of zeros before and after, and that ``size`` times:
    once for each product of the short convolution.

    Args:
        taps (int): ``N``, 3 or 5.
        lanes (int): Vector width, 8 or 16.
    """
    import taichi as ti
    vector, array = ti.types.vector, ti.types.ndarray
    vec = vector(lanes, ti.f32)
    return SimpleNamespace(
        taps=taps, lanes=lanes, matrices=matrices(TILE, taps),
        size=TILE + taps - 1, halo=taps // 2, pad=ROWS + taps - 2, vec=vec,
        Floats=array(dtype=ti.f32, ndim=1), Ints=array(dtype=ti.i32, ndim=1),
        Vectors=array(dtype=vec, ndim=1),
        Masks=array(dtype=vector(lanes, ti.i32), ndim=1),
        Quads=array(dtype=vector(TILE, ti.f32), ndim=1),
        Pairs=array(dtype=vector(2 * TILE, ti.f32), ndim=1))


@cache
def putter(floats: int):
    """The device function that writes ``floats`` lanes to one entry."""
    import taichi as ti
    part = ti.types.vector(floats, ti.f32)

    @ti.func
    def put(v, lane: ti.template(), target: ti.template(), place, add):
        q = part([v[lane + i] for i in ti.static(range(floats))])
        if add:
            q += target[place]
        target[place] = q

    return put


@cache
def movers(taps: int, lanes: int) -> SimpleNamespace:
    """Device functions between tensors and rows of tiles.

    Rows of tiles lie in the scratch as four vectors each, one a place within
    the tile. ``base`` is the first quad of a plane, ``width`` the quads of
    its rows, ``at`` the first of a vector's ``places``. Beside a row of
    tiles ``edge`` has four floats, of tiles in other vectors: the nearest two
    before (the next first) and the nearest two behind. ``one`` is the number
    1, which LLVM must not know: of what is loaded and only moved it makes
    moves of single elements.
    """
    import taichi as ti
    types = layout(taps, lanes)
    vec, put = types.vec, putter(TILE)
    blocks = lanes // 4

    @ti.func
    def low_pairs(a, b):
        """``a0 b0 a1 b1`` of each four lanes."""
        return vec([v[4 * i + j] for i in ti.static(range(blocks))
                    for j in ti.static(range(2)) for v in ti.static((a, b))])

    @ti.func
    def high_pairs(a, b):
        """``a2 b2 a3 b3`` of each four lanes."""
        return vec([v[4 * i + j] for i in ti.static(range(blocks))
                    for j in ti.static((2, 3)) for v in ti.static((a, b))])

    @ti.func
    def firsts(a, b):
        """``a0 a1 b0 b1`` of each four lanes."""
        return vec([v[4 * i + j] for i in ti.static(range(blocks))
                    for v in ti.static((a, b)) for j in ti.static(range(2))])

    @ti.func
    def lasts(a, b):
        """``a2 a3 b2 b3`` of each four lanes."""
        return vec([v[4 * i + j] for i in ti.static(range(blocks))
                    for v in ti.static((a, b)) for j in ti.static((2, 3))])

    @ti.func
    def turned(a, b, c, d, one):
        """The transpose of each four lanes of four vectors; its own inverse.

        Two vectors at a time, and what LLVM cannot look through in between:
        of more it makes moves of single elements.
        """
        ab, cd = one * low_pairs(a, b), one * low_pairs(c, d)
        ab2, cd2 = one * high_pairs(a, b), one * high_pairs(c, d)
        return firsts(ab, cd), lasts(ab, cd), firsts(ab2, cd2), lasts(
            ab2, cd2)

    @ti.func
    def look_up(places: ti.template(), at):
        """The ``spots`` of a vector's quads, read once for many vectors.

        Below 2**30, as what they are added to: their sums have no sign.
        """
        first = at & INDEX
        return ti.static([places[first + k] & INDEX for k in range(lanes)])

    @ti.func
    def joined(source: ti.template(), frm, spots: ti.template(),
               k: ti.template(), one):
        """The quads of the lanes ``k, k + 4, ...``, one behind the other."""
        p0 = source[frm + spots[k]]
        p1 = source[frm + spots[k + 4]]
        v = vec(0.0)
        if ti.static(lanes == 8):
            v = vec([p[i] for p in ti.static((p0, p1))
                     for i in ti.static(range(4))])
        else:
            p2 = source[frm + spots[k + 8]]
            p3 = source[frm + spots[k + 12]]
            v = vec([p[i] for p in ti.static((p0, p1, p2, p3))
                     for i in ti.static(range(4))])
        return one * v

    @ti.func
    def gather(source: ti.template(), frm, spots: ti.template(), one):
        """Four vectors, each with one element of every lane's quad."""
        first = frm & INDEX
        return turned(joined(source, first, spots, 0, one),
                      joined(source, first, spots, 1, one),
                      joined(source, first, spots, 2, one),
                      joined(source, first, spots, 3, one), one)

    @ti.func
    def quads(x0, x1, x2, x3, one):
        """Those of the lanes ``k, k + 4, ...``, for each ``k``."""
        p0, p1, p2, p3 = turned(one * x0, one * x1, one * x2, one * x3, one)
        return one * p0, one * p1, one * p2, one * p3

    @ti.func
    def scatter(x0, x1, x2, x3, target: ti.template(), to,
                spots: ti.template(), add, one):
        """The reverse of :func:`gather`, the last lane first."""
        p0, p1, p2, p3 = quads(x0, x1, x2, x3, one)
        first = to & INDEX
        for block in ti.static(range(blocks - 1, -1, -1)):
            put(p3, 4 * block, target, first + spots[4 * block + 3], add)
            put(p2, 4 * block, target, first + spots[4 * block + 2], add)
            put(p1, 4 * block, target, first + spots[4 * block + 1], add)
            put(p0, 4 * block, target, first + spots[4 * block], add)

    @ti.func
    def load_v(source: ti.template(), base, width, length,
               places: ti.template(), at, near, far, scratch: ti.template(),
               tiles, floats: ti.template(), edge, one):
        """Rows of tiles down the columns.

        There are other vectors before and behind where ``near`` and ``far``
        say so.
        """
        spots = look_up(places, at)
        for r in range(length):
            frm = base + r * width
            x0, x1, x2, x3 = gather(source, frm, ti.static(spots), one)
            row = (tiles + 4 * r) & INDEX
            scratch[row], scratch[row + 1] = x0, x1
            scratch[row + 2], scratch[row + 3] = x2, x3
        if near:
            frm = base + places[at - 1]
            for r in range(length):
                q = source[frm + r * width]
                floats[edge + 4 * r] = q[3]
                floats[edge + 4 * r + 1] = q[2]
        if far:
            frm = base + places[at + lanes]
            for r in range(length):
                q = source[frm + r * width]
                floats[edge + 4 * r + 2] = q[0]
                floats[edge + 4 * r + 3] = q[1]

    @ti.func
    def beside(source: ti.template(), frm, floats: ti.template(), to):
        q = source[frm]
        for i in ti.static(range(4)):
            floats[to + 4 * i] = q[i]

    @ti.func
    def load_h(source: ti.template(), base, width, places: ti.template(), at,
               near, far, mask: ti.template(), inside,
               scratch: ti.template(), tiles, floats: ti.template(), edge,
               one):
        """Rows of tiles along the rows.

        Zero where there is no row of the image (``mask`` from ``inside`` on).
        """
        for j in range(4):
            there = mask[inside + j]
            spots = look_up(places, at + j * lanes)
            for c in range(width):
                x0, x1, x2, x3 = gather(source, base + c, ti.static(spots),
                                        one)
                to = (tiles + 16 * c + j) & INDEX
                scratch[to] = ti.select(there, x0, 0.0)
                scratch[to + 4] = ti.select(there, x1, 0.0)
                scratch[to + 8] = ti.select(there, x2, 0.0)
                scratch[to + 12] = ti.select(there, x3, 0.0)
        if near:
            above = base + places[at - 1]
            above2 = base + places[at - lanes - 1]
            for c in range(width):
                to = edge + 16 * c
                beside(source, above + c, floats, to)
                beside(source, above2 + c, floats, to + 1)
        if far:
            below = base + places[at + 4 * lanes]
            below2 = base + places[at + 5 * lanes]
            there2 = mask[inside + MASKS + 1]
            for c in range(width):
                to = edge + 16 * c + 2
                beside(source, below + c, floats, to)
                if there2[0] != 0:
                    beside(source, below2 + c, floats, to + 1)
                else:
                    for i in ti.static(range(4)):
                        floats[to + 1 + 4 * i] = 0.0

    @ti.func
    def before(v, edge):
        """Of each lane the value of the one before; of the first ``edge``."""
        return vec([edge] + [v[lane] for lane in ti.static(range(lanes - 1))])

    @ti.func
    def after(v, edge):
        """Of each lane the value of the next; of the last ``edge``."""
        return vec([v[lane + 1] for lane in ti.static(range(lanes - 1))] +
                   [edge])

    return SimpleNamespace(quads=quads, look_up=look_up, gather=gather,
                           scatter=scatter, load_v=load_v, load_h=load_h,
                           before=before, after=after)
