"""The fused kernel's weights: from small kernels to products, and back."""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache
from types import SimpleNamespace

from .lanes import layout

__all__ = ['weights']


@cache
def weights(taps: int, lanes: int, unit: int) -> SimpleNamespace:
    """Device functions on one ``N x N`` kernel at a time."""
    import taichi as ti
    types = layout(taps, lanes, unit)
    size, area = types.size, taps * taps
    G = types.matrices[1]

    @ti.func
    def gather(small: ti.template(), which: ti.template(), first, count,
               turned, kernels: ti.template(), to):
        """The sum of the small kernels ``which``, transposed if ``turned``.

        Numbers below zero stand for none.
        """
        for a in range(taps):
            for n in range(taps):
                at = a * taps + n
                if turned:
                    at = n * taps + a
                u = 0.0
                for r in range(first, first + count):
                    if which[r] >= 0:
                        u += small[which[r] * area + at]
                kernels[to + a * taps + n] = u

    @ti.func
    def collect(kernels: ti.template(), which: ti.template(), first, count,
                turned, small: ti.template(), to):
        """The reverse: kernels from number ``turned`` on are transposed."""
        for a in range(taps):
            for n in range(taps):
                u = 0.0
                for r in range(first, first + count):
                    at = a * taps + n
                    if which[r] >= turned:
                        at = n * taps + a
                    if which[r] >= 0:
                        u += kernels[which[r] * area + at]
                small[to + a * taps + n] = u

    @ti.func
    def to_products(kernels: ti.template(), frm, flip: ti.template(),
                    products: ti.template(), to):
        """``G w`` of each row; ``flip`` reverses both axes first."""
        for a in ti.static(range(taps)):
            for q in ti.static(range(size)):
                u = 0.0
                for n in ti.static(range(taps)):
                    if ti.static(G[q][n] != 0):
                        at = ti.static(area - 1 - a * taps - n if flip
                                       else a * taps + n)
                        u += G[q][n] * kernels[frm + at]
                products[to + a * size + q] = u

    @ti.func
    def from_products(grads: ti.template(), frm, parts, part,
                      kernels: ti.template(), to):
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
                kernels[to + a * taps + n] = u

    return SimpleNamespace(gather=gather, collect=collect,
                           to_products=to_products,
                           from_products=from_products)
