"""Operations on vectors for which Taichi has no words: device functions."""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache
from pathlib import Path

from .capability import sums_take_units_of_products

__all__ = ['add_product']


@cache
def _functions():
    """What ``vector_ops.ll`` defines, to be called from Taichi."""
    from taichi.lang.source_builder import SourceBuilder
    return SourceBuilder.from_file(
        str(Path(__file__).with_name('vector_ops.bc')))


@cache
def add_product(lanes: int):
    """The device function that adds the product of two vectors to a third.

    Taichi emits a product and a sum, whatever its arithmetic; CPUs whose sums
    take the units of products get one instruction for both.

    Args:
        lanes (int): Vector width, 8 or 16.
    """
    import taichi as ti
    vec = ti.types.vector(lanes, ti.f32)

    @ti.func
    def apart(total: ti.template(), a, b):
        total += a * b

    if not sums_take_units_of_products():
        return apart
    fused = getattr(_functions(), f'add_product_{lanes}')

    @ti.func
    def together(total: ti.template(), a, b):
        # Memory of their own, for it takes addresses: LLVM removes it.
        x, y = vec(0.0) + a, vec(0.0) + b
        fused(total, x, y)

    return together
