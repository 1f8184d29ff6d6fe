r"""GELU and global response normalisation of a training step, on the CPU.

With the input ``x`` of GELU, places ``p`` and channels ``c`` of an image, the
norms and factors of GRN, and the gradient ``g`` of what leaves it:

.. math::
    n_c = \Big(\sum_p \mathrm{GELU}(x_{pc})^2\Big)^{1/2}, \quad
    z_{pc} = f_c\,\mathrm{GELU}(x_{pc}) + \beta_c, \quad
    \sum_p g_{pc}, \ \sum_p g_{pc}\,\mathrm{GELU}(x_{pc}), \quad
    (f_c\,g_{pc} + h_c\,\mathrm{GELU}(x_{pc}))\,\mathrm{GELU}'(x_{pc})

Each is one pass that computes GELU again: to read another tensor of the widest
size takes as long.
"""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache, lru_cache
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor

from . import launcher, runtime
from .gelu import gelu, gelu_slope
from .gelu_grn import reason
from .lanes import INDEX, layout
from .memory import lanes_within

__all__ = ['norms', 'affine', 'sums', 'gradient_', 'reason']

_PARTS = 32  # tasks: results do not depend on the number of threads


@cache
def _kernels(lanes: int) -> SimpleNamespace:
    """Compiles the kernels for vectors of so many channels, when called."""
    import taichi as ti
    types = layout(3, lanes)
    vec, activate, slope = types.vec, gelu(), gelu_slope()

    @ti.kernel
    def squares(
            x: types.Vectors,  # (images, places, vectors)
            sums: types.Vectors,  # (images, parts, vectors)
            images: ti.i32, places: ti.i32, vectors: ti.i32, parts: ti.i32):
        # Taichi gives a core at least 512 turns of a loop.
        for turn in range(512 * images * parts):
            if (turn & 511) == 0:
                task = turn >> 9
                image, part = task // parts, task % parts
                own = task * vectors
                for v in range(vectors):
                    sums[own + v] = vec(0.0)
                for place in range(part * places // parts,
                                   (part + 1) * places // parts):
                    row = (image * places + place) * vectors
                    for v in range(vectors):
                        total = (own + v) & INDEX
                        y = activate(x[(row + v) & INDEX])
                        sums[total] = sums[total] + y * y  # += is atomic

    @ti.kernel
    def affine(
            x: types.Vectors, out: types.Vectors,
            factor: types.Vectors,  # (images, vectors)
            beta: types.Vectors,  # (vectors,)
            images: ti.i32, places: ti.i32, vectors: ti.i32, parts: ti.i32):
        for turn in range(512 * images * parts):
            if (turn & 511) == 0:
                task = turn >> 9
                image, part = task // parts, task % parts
                own = image * vectors
                for place in range(part * places // parts,
                                   (part + 1) * places // parts):
                    row = (image * places + place) * vectors
                    for v in range(vectors):
                        at = (row + v) & INDEX
                        out[at] = activate(x[at]) * factor[
                            (own + v) & INDEX] + beta[v]

    @ti.kernel
    def products(
            x: types.Vectors, grad: types.Vectors,
            sums: types.Vectors,  # (images, parts, 2, vectors)
            images: ti.i32, places: ti.i32, vectors: ti.i32, parts: ti.i32):
        for turn in range(512 * images * parts):
            if (turn & 511) == 0:
                task = turn >> 9
                image, part = task // parts, task % parts
                own = 2 * task * vectors
                for v in range(2 * vectors):
                    sums[own + v] = vec(0.0)
                for place in range(part * places // parts,
                                   (part + 1) * places // parts):
                    row = (image * places + place) * vectors
                    for v in range(vectors):
                        at, total = (row + v) & INDEX, (own + v) & INDEX
                        g = grad[at]
                        sums[total] = sums[total] + g
                        total = (total + vectors) & INDEX
                        sums[total] = sums[total] + g * activate(x[at])

    @ti.kernel
    def gradient(
            x: types.Vectors, grad: types.Vectors,
            factor: types.Vectors,  # (images, vectors), as the next
            through: types.Vectors,
            images: ti.i32, places: ti.i32, vectors: ti.i32, parts: ti.i32):
        for turn in range(512 * images * parts):
            if (turn & 511) == 0:
                task = turn >> 9
                image, part = task // parts, task % parts
                own = image * vectors
                for place in range(part * places // parts,
                                   (part + 1) * places // parts):
                    row = (image * places + place) * vectors
                    for v in range(vectors):
                        at, channel = (row + v) & INDEX, (own + v) & INDEX
                        value = x[at]
                        grad[at] = (grad[at] * factor[channel] + activate(
                            value) * through[channel]) * slope(value)

    return SimpleNamespace(squares=squares, affine=affine, products=products,
                           gradient=gradient)


class _Plan(NamedTuple):
    """What launches need that does not depend on the tensors."""
    lanes: int
    numbers: tuple[int, int, int, int]
    kept: dict[str, launcher.Kept]


@lru_cache(maxsize=256)
def _plan(images: int, places: int, channels: int, lanes: int) -> _Plan:
    parts = max(min(-(-_PARTS // images), places), 1)
    return _Plan(lanes, (images, places, channels // lanes, parts),
                 {name: launcher.Kept() for name in
                  ('squares', 'affine', 'products', 'gradient')})


def _planned(x: Tensor) -> _Plan:
    B, H, W, C = x.shape
    return _plan(B, H * W, C, lanes_within(C))


def _launch(plan: _Plan, name: str, *tensors: Tensor) -> None:
    vectors = [t.view(-1, plan.lanes) for t in tensors]
    with runtime.launching(tensors[0].device):
        launcher.call(getattr(_kernels(plan.lanes), name), *vectors,
                      *plan.numbers, kept=plan.kept[name])


def _aligned(*tensors: Tensor) -> list[Tensor]:
    """Copies of what begins where no vector does; torch's own never do."""
    return [t.clone() if t.data_ptr() % 64 else t for t in tensors]


def norms(x: Tensor) -> Tensor:
    """The norms of ``GELU(x)`` over the places of an image.

    Args:
        x (Tensor): f32 ``(B, H, W, C)`` on the CPU, contiguous, as all
            wide tensors here; see :func:`reason`.

    Returns:
        Tensor: ``(B, 1, 1, C)``.
    """
    plan = _planned(x)
    images, _, _, parts = plan.numbers
    found = x.new_empty(images, parts, 1, x.shape[-1])
    _launch(plan, 'squares', *_aligned(x), found)
    return found.sum(1, keepdim=True).sqrt_()


def affine(x: Tensor, factor: Tensor, beta: Tensor) -> Tensor:
    """``GELU(x) * factor + beta``.

    Args:
        x (Tensor): As for :func:`norms`.
        factor (Tensor): f32 ``(B, 1, 1, C)``, contiguous.
        beta (Tensor): f32, ``C`` elements, contiguous.

    Returns:
        Tensor: ``(B, H, W, C)``.
    """
    out = torch.empty_like(x)
    x, factor, beta = _aligned(x, factor, beta)
    _launch(_planned(x), 'affine', x, out, factor, beta)
    return out


def sums(x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """The sums of ``grad`` and ``grad * GELU(x)`` over an image's places.

    Args:
        x, grad (Tensor): As for :func:`norms`.

    Returns:
        tuple[Tensor, Tensor]: Each ``(B, 1, 1, C)``.
    """
    plan = _planned(x)
    images, _, _, parts = plan.numbers
    found = x.new_empty(images, parts, 2, x.shape[-1])
    _launch(plan, 'products', *_aligned(x, grad), found)
    both = found.sum(1)[:, :, None, None]
    return both[:, 0], both[:, 1]


def gradient_(x: Tensor, grad: Tensor, factor: Tensor,
              through: Tensor) -> Tensor:
    """``(grad * factor + GELU(x) * through) * GELU'(x)``, in ``grad`` where
    that begins at the address of a vector.

    Args:
        x, grad (Tensor): As for :func:`norms`.
        factor, through (Tensor): f32 ``(B, 1, 1, C)``, contiguous.

    Returns:
        Tensor: ``(B, H, W, C)``.
    """
    x, grad, factor, through = _aligned(x, grad, factor, through)
    _launch(_planned(x), 'gradient', x, grad, factor, through)
    return grad
