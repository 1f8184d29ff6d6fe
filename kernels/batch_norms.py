r"""The sum of three batch-norms of a training step, on the CPU.

With a base ``x`` and tensors ``y_s``, each normalised by its own mean and
variance over the places of all images,

.. math::
    z = x + \sum_s \Big(\gamma_s \hat y_s + \beta_s\Big), \quad
    \hat y_s = \frac{y_s - \mu_s}{\sqrt{\sigma_s^2 + \epsilon_s}}, \qquad
    \frac{\partial L}{\partial y_s} = \frac{\gamma_s}{\sqrt{\sigma_s^2 +
    \epsilon_s}} \Big(g - \bar g - \hat y_s\,\overline{g \hat y_s}\Big)

A task computes whole channels, so that the second pass over one finds it in a
cache; nothing is added across tasks, and results do not depend on the threads.
"""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache, lru_cache
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor

from . import lane_sums, launcher, runtime
from .lanes import INDEX, layout
from .memory import TASKS, vector_lanes

__all__ = ['NORMS', 'reason', 'forward', 'backward']

NORMS = 3


@cache
def _kernels(lanes: int) -> SimpleNamespace:
    """Compiles the kernels for vectors of so many places, when called."""
    import taichi as ti
    types = layout(3, lanes)
    vec, total = types.vec, lane_sums.sums(3, lanes).total

    @ti.kernel
    def normalise(
            y0: types.Vectors,  # (images, channels, vectors), as the next
            y1: types.Vectors, y2: types.Vectors, base: types.Vectors,
            out: types.Vectors,
            affine: types.Floats,  # (norms, 2, channels): weight and bias
            eps: types.Floats,  # (norms,)
            stats: types.Floats,  # (norms, 2, channels): mean and variance
            images: ti.i32, channels: ti.i32, vectors: ti.i32, tasks: ti.i32):
        # Taichi gives a core at least 512 turns of a loop.
        for turn in range(512 * tasks):
            if (turn & 511) == 0:
                task = turn >> 9
                share = 1.0 / ti.cast(images * vectors * lanes, ti.f32)
                for c in range(task * channels // tasks,
                               (task + 1) * channels // tasks):
                    m0, m1, m2 = 0.0, 0.0, 0.0
                    for image in range(images):
                        first = (image * channels + c) * vectors
                        s0, s1, s2 = vec(0.0), vec(0.0), vec(0.0)
                        for v in range(vectors):
                            at = (first + v) & INDEX
                            s0 += y0[at]
                            s1 += y1[at]
                            s2 += y2[at]
                        m0 += total(s0)
                        m1 += total(s1)
                        m2 += total(s2)
                    m0, m1, m2 = m0 * share, m1 * share, m2 * share
                    v0, v1, v2 = 0.0, 0.0, 0.0
                    e0, e1, e2 = 0.0, 0.0, 0.0  # what the means missed
                    for image in range(images):
                        first = (image * channels + c) * vectors
                        s0, s1, s2 = vec(0.0), vec(0.0), vec(0.0)
                        r0, r1, r2 = vec(0.0), vec(0.0), vec(0.0)
                        for v in range(vectors):
                            at = (first + v) & INDEX
                            d0, d1, d2 = y0[at] - m0, y1[at] - m1, y2[at] - m2
                            r0 += d0
                            r1 += d1
                            r2 += d2
                            s0 += d0 * d0
                            s1 += d1 * d1
                            s2 += d2 * d2
                        e0 += total(r0)
                        e1 += total(r1)
                        e2 += total(r2)
                        v0 += total(s0)
                        v1 += total(s1)
                        v2 += total(s2)
                    e0, e1, e2 = e0 * share, e1 * share, e2 * share
                    m0, m1, m2 = m0 + e0, m1 + e1, m2 + e2
                    v0 = v0 * share - e0 * e0
                    v1 = v1 * share - e1 * e1
                    v2 = v2 * share - e2 * e2
                    stats[c] = m0
                    stats[channels + c] = v0
                    stats[2 * channels + c] = m1
                    stats[3 * channels + c] = v1
                    stats[4 * channels + c] = m2
                    stats[5 * channels + c] = v2
                    a0 = affine[c] / ti.sqrt(v0 + eps[0])
                    a1 = affine[2 * channels + c] / ti.sqrt(v1 + eps[1])
                    a2 = affine[4 * channels + c] / ti.sqrt(v2 + eps[2])
                    b0 = affine[channels + c]
                    b1 = affine[3 * channels + c]
                    b2 = affine[5 * channels + c]
                    for image in range(images):
                        first = (image * channels + c) * vectors
                        for v in range(vectors):
                            at = (first + v) & INDEX
                            out[at] = (((y0[at] - m0) * a0 + b0)
                                       + ((y1[at] - m1) * a1 + b1)
                                       + ((y2[at] - m2) * a2 + b2) + base[at])

    @ti.kernel
    def differentiate(
            grad: types.Vectors,  # (images, channels, vectors), as the next
            y0: types.Vectors, y1: types.Vectors, y2: types.Vectors,
            d0: types.Vectors, d1: types.Vectors, d2: types.Vectors,
            affine: types.Floats, eps: types.Floats, stats: types.Floats,
            grads: types.Floats,  # (norms, 2, channels), of ``affine``
            images: ti.i32, channels: ti.i32, vectors: ti.i32, tasks: ti.i32):
        for turn in range(512 * tasks):
            if (turn & 511) == 0:
                task = turn >> 9
                share = 1.0 / ti.cast(images * vectors * lanes, ti.f32)
                for c in range(task * channels // tasks,
                               (task + 1) * channels // tasks):
                    m0, m1 = stats[c], stats[2 * channels + c]
                    m2 = stats[4 * channels + c]
                    i0 = 1.0 / ti.sqrt(stats[channels + c] + eps[0])
                    i1 = 1.0 / ti.sqrt(stats[3 * channels + c] + eps[1])
                    i2 = 1.0 / ti.sqrt(stats[5 * channels + c] + eps[2])
                    g, p0, p1, p2 = 0.0, 0.0, 0.0, 0.0
                    for image in range(images):
                        first = (image * channels + c) * vectors
                        s, s0 = vec(0.0), vec(0.0)
                        s1, s2 = vec(0.0), vec(0.0)
                        for v in range(vectors):
                            at = (first + v) & INDEX
                            x = grad[at]
                            s += x
                            s0 += x * (y0[at] - m0)
                            s1 += x * (y1[at] - m1)
                            s2 += x * (y2[at] - m2)
                        g += total(s)
                        p0 += total(s0)
                        p1 += total(s1)
                        p2 += total(s2)
                    p0, p1, p2 = p0 * i0, p1 * i1, p2 * i2
                    grads[c] = p0
                    grads[channels + c] = g
                    grads[2 * channels + c] = p1
                    grads[3 * channels + c] = g
                    grads[4 * channels + c] = p2
                    grads[5 * channels + c] = g
                    g = g * share
                    a0 = affine[c] * i0
                    a1 = affine[2 * channels + c] * i1
                    a2 = affine[4 * channels + c] * i2
                    p0, p1, p2 = (p0 * share * i0, p1 * share * i1,
                                  p2 * share * i2)
                    for image in range(images):
                        first = (image * channels + c) * vectors
                        for v in range(vectors):
                            at = (first + v) & INDEX
                            x = grad[at] - g
                            d0[at] = (x - (y0[at] - m0) * p0) * a0
                            d1[at] = (x - (y1[at] - m1) * p1) * a1
                            d2[at] = (x - (y2[at] - m2) * p2) * a2

    return SimpleNamespace(normalise=normalise, differentiate=differentiate)


class _Plan(NamedTuple):
    """What launches need that does not depend on the tensors."""
    lanes: int
    numbers: tuple[int, int, int, int]
    eps: Tensor
    kept: dict[str, launcher.Kept]


@lru_cache(maxsize=256)
def _plan(shape: torch.Size, eps: tuple[float, ...], lanes: int,
          threads: int) -> _Plan:
    B, C, H, W = shape
    with torch.inference_mode(False):
        return _Plan(lanes, (B, C, H * W // lanes, min(C, TASKS * threads)),
                     torch.tensor(eps, device='cpu'),
                     {name: launcher.Kept()
                      for name in ('normalise', 'differentiate')})


def _planned(x: Tensor, eps: tuple[float, ...]) -> _Plan:
    lanes, places = vector_lanes(), x.shape[2] * x.shape[3]
    while places % lanes:
        lanes //= 2
    return _plan(x.shape, eps, lanes, torch.get_num_threads())


def reason(*tensors: Tensor) -> str | None:
    """Why the kernels cannot take tensors of one shape, or None."""
    first = tensors[0]
    places = first.shape[2] * first.shape[3]
    if places % 4 or not 0 < first.numel() <= INDEX:
        return ('it takes planes of a multiple of 4 places and 1 to '
                f'{INDEX} elements, not {tuple(first.shape)}')
    if not all(t.is_contiguous() and t.data_ptr() % 64 == 0 for t in tensors):
        return 'it takes contiguous tensors at the address of a vector'
    if not runtime.on_cpu(first.device):
        return 'it is made for the CPU'
    return runtime.vector_reason(first.device)


def forward(ys: tuple[Tensor, ...], base: Tensor, affine: Tensor,
            eps: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """The sum, and what the norms found.

    Args:
        ys (tuple[Tensor]): :data:`NORMS` f32 ``(B, C, H, W)`` of which
            :func:`reason` is None, with ``base``.
        base (Tensor): As each of them.
        affine (Tensor): f32 ``(NORMS, 2, C)``, weights and biases.
        eps (tuple[float]): One a norm.

    Returns:
        tuple[Tensor, Tensor]: ``(B, C, H, W)``; f32 ``(NORMS, 2, C)``, means
        and variances (of all elements, not one fewer).
    """
    plan = _planned(base, eps)
    out, stats = torch.empty_like(base), torch.empty_like(affine)
    vectors = [t.view(-1, plan.lanes) for t in (*ys, base, out)]
    with runtime.launching(base.device):
        launcher.call(_kernels(plan.lanes).normalise, *vectors,
                      affine.view(-1), plan.eps, stats.view(-1),
                      *plan.numbers, kept=plan.kept['normalise'])
    return out, stats


def backward(grad: Tensor, ys: tuple[Tensor, ...], affine: Tensor,
             stats: Tensor, eps: tuple[float, ...]
             ) -> tuple[list[Tensor], Tensor]:
    """The gradients of :func:`forward`, but for that of ``base``: ``grad``.

    Args:
        grad (Tensor): f32 ``(B, C, H, W)`` as ``ys``.
        ys, affine, eps: As for :func:`forward`.
        stats (Tensor): What it found.

    Returns:
        tuple[list[Tensor], Tensor]: Of each of ``ys``, and of ``affine``.
    """
    plan = _planned(grad, eps)
    grads = torch.empty_like(affine)
    of_ys = [torch.empty_like(y) for y in ys]
    vectors = [t.view(-1, plan.lanes) for t in (grad, *ys, *of_ys)]
    with runtime.launching(grad.device):
        launcher.call(_kernels(plan.lanes).differentiate, *vectors,
                      affine.view(-1), plan.eps, stats.view(-1),
                      grads.view(-1), *plan.numbers,
                      kept=plan.kept['differentiate'])
    return of_ys, grads
