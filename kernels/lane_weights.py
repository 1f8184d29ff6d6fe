"""The fused kernel's weights: from small kernels to products, and back."""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache
from types import SimpleNamespace

from .lanes import layout

__all__ = ['weights']


@cache
def weights(taps: int, lanes: int) -> SimpleNamespace:
    """Device functions on one ``N x N`` kernel at a time."""
    import taichi as ti
    types = layout(taps, lanes)
    size, area = types.size, taps * taps
    G = types.matrices[1]

    @ti.func
    def gather(small: ti.template(), table: ti.template(), first, count,
               turned, floats: ti.template(), to):
        """The sum of the small kernels listed, transposed if ``turned``.

        Numbers below zero stand for none.
        """
        for a in range(taps):
            for n in range(taps):
                at = a * taps + n
                if turned:
                    at = n * taps + a
                u = 0.0
                for r in range(first, first + count):
                    if table[r] >= 0:
                        u += small[table[r] * area + at]
                floats[to + a * taps + n] = u

    @ti.func
    def to_products(floats: ti.template(), frm, to, flip: ti.template()):
        """``G w`` of each row; ``flip`` reverses both axes first."""
        for a in ti.static(range(taps)):
            for q in ti.static(range(size)):
                u = 0.0
                for n in ti.static(range(taps)):
                    if ti.static(G[q][n] != 0):
                        at = ti.static(area - 1 - a * taps - n if flip
                                       else a * taps + n)
                        u += G[q][n] * floats[frm + at]
                floats[to + a * size + q] = u

    @ti.func
    def make(small: ti.template(), table: ti.template(), c, C, reps, source,
             flipped, floats: ti.template(), to, flip: ti.template()):
        """The products of all entries of a channel, one list after another.

        What is behind them is overwritten.
        """
        at = to
        for s in range(3):
            for t in range(table[s * C + c], table[s * C + c + 1]):
                entry = t
                if ti.static(flip):
                    entry = table[flipped + t]
                gather(small, table, source + entry * reps, reps, s == 2,
                       floats, at + taps * size)
                to_products(floats, at + taps * size, at, flip)
                at += taps * size

    @ti.func
    def from_products(grads: ti.template(), frm, parts, part, to):
        """``G^T g`` of the sum of all parts, which are ``part`` apart."""
        for i in range(taps * size):
            u = 0.0
            for p in range(parts):
                u += grads[frm + p * part + i]
            grads[frm + i] = u
        for a in ti.static(range(taps)):
            for n in ti.static(range(taps)):
                u = 0.0
                for q in ti.static(range(size)):
                    if ti.static(G[q][n] != 0):
                        u += G[q][n] * grads[frm + a * size + q]
                grads[to + a * taps + n] = u

    @ti.func
    def collect(kernels: ti.template(), frm, table: ti.template(), first,
                count, turned, small: ti.template(), to):
        """The sum of the kernels listed.

        From number ``turned`` on they are transposed; numbers below zero
        stand for none.
        """
        for a in range(taps):
            for n in range(taps):
                u = 0.0
                for r in range(first, first + count):
                    at = a * taps + n
                    if table[r] >= turned:
                        at = n * taps + a
                    if table[r] >= 0:
                        u += kernels[frm + table[r] * area + at]
                small[to + a * taps + n] = u

    return SimpleNamespace(make=make, from_products=from_products,
                           collect=collect)
