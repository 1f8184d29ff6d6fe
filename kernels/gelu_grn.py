r"""GELU and global response normalisation in one launch, on the CPU.

.. math::
    y = \mathrm{GELU}(x), \quad
    z_{pc} = y_{pc} \left(1 + \gamma_c
    \frac{\lVert y_{\cdot c} \rVert_2}{\bar g + \epsilon}\right)

with the norms over the places ``p`` of an image and their mean :math:`\bar g`
over its channels, in place. Two passes over the widest tensor of a block; as
operators of torch it is three, and seven calls for a few numbers.
"""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from . import launcher, runtime
from .lanes import INDEX, layout
from .memory import vector_lanes

__all__ = ['gelu_grn_', 'reason']

_PARTS = 32  # tasks: results do not depend on the number of threads
# The normal distribution's CDF is 1/2 + x P(x^2) / Q(x^2), to 2e-8 up to
# EDGE: fitted by least squares with Lawson's weights. Behind it is 0 or 1.
EDGE = 5.6
P = (0.3989422718696924, 0.033928716701223174, 0.004677325689648763,
     0.00016892534974391455, 6.289689727332442e-06, 2.2297283490101153e-08)
Q = (1.0, 0.25171300756195397, 0.02867736359852803, 0.0018854699891601267,
     7.334262520230197e-05, 1.1796466367416278e-06)


@cache
def _kernel(lanes: int):
    """Compiles the kernel for vectors of so many channels."""
    import taichi as ti
    types = layout(3, lanes)
    vec = types.vec

    @ti.func
    def polynomial(t, t2, t4, factors: ti.template()):
        """By pairs: their chain of operations is half as long."""
        return ((factors[0] + factors[1] * t) +
                (factors[2] + factors[3] * t) * t2 +
                (factors[4] + factors[5] * t) * t4)

    @ti.func
    def gelu(x):
        t = x * x
        t2 = t * t
        t4 = t2 * t2
        below = 0.5 + x * polynomial(t, t2, t4, ti.static(P)) / polynomial(
            t, t2, t4, ti.static(Q))
        below = ti.select(x >= EDGE, 1.0, below)
        return x * ti.select(x <= -EDGE, 0.0, below)

    @ti.kernel
    def gelu_grn(
            x: types.Vectors,  # (images, places, vectors)
            gamma: types.Vectors,  # (vectors,)
            sums: types.Vectors,  # (images, parts, vectors)
            eps: types.Floats,  # one
            images: ti.i32, places: ti.i32, vectors: ti.i32, parts: ti.i32):
        # Taichi gives a core at least 512 turns of a loop.
        for turn in range(512 * images * parts):
            if (turn & 511) == 0:
                part = turn >> 9
                image, own = part // parts, part * vectors
                for v in range(vectors):
                    sums[own + v] = vec(0.0)
                first = part % parts * places // parts
                last = (part % parts + 1) * places // parts
                for place in range(first, last):
                    row = (image * places + place) * vectors
                    for v in range(vectors):
                        at, to = (row + v) & INDEX, (own + v) & INDEX
                        y = gelu(x[at])
                        x[at] = y
                        sums[to] = sums[to] + y * y  # += would be atomic
        ti.loop_config(serialize=True)
        for image in range(images):
            own = image * parts * vectors
            mean = vec(0.0)
            for v in range(vectors):
                total = vec(0.0)
                for part in range(parts):
                    total += sums[own + part * vectors + v]
                total = ti.sqrt(total)
                sums[own + v] = total
                mean += total
            scale = 0.0
            for lane in ti.static(range(lanes)):
                scale += mean[lane]
            scale = 1.0 / (scale / (vectors * lanes) + eps[0])
            for v in range(vectors):
                sums[own + v] = gamma[v] * sums[own + v] * scale + 1.0
        for turn in range(512 * images * parts):
            if (turn & 511) == 0:
                part = turn >> 9
                image = part // parts
                own = image * parts * vectors
                first = part % parts * places // parts
                last = (part % parts + 1) * places // parts
                for place in range(first, last):
                    row = (image * places + place) * vectors
                    for v in range(vectors):
                        at = (row + v) & INDEX
                        x[at] = x[at] * sums[(own + v) & INDEX]

    return gelu_grn


class _Plan(NamedTuple):
    """What a launch needs that does not depend on the tensors."""
    sums: Tensor
    eps: Tensor
    parts: int
    kept: launcher.Kept


@lru_cache(maxsize=256)
def _plan(images: int, places: int, channels: int, eps: float,
          lanes: int) -> _Plan:
    with torch.inference_mode(False):
        parts = max(min(-(-_PARTS // images), places), 1)
        sums = torch.empty(images * parts * channels + lanes, device='cpu')
        first = -sums.data_ptr() // 4 % lanes
        sums = sums[first:first + images * parts * channels].view(-1, lanes)
        return _Plan(sums, torch.tensor([eps], device='cpu'), parts,
                     launcher.Kept())


def reason(elements: int, channels: int, device: torch.device) -> str | None:
    """Why the kernel cannot take a tensor of this size, or None."""
    lanes = vector_lanes()
    if channels % lanes:
        return f'it takes multiples of {lanes} channels, not {channels}'
    if not 0 < elements <= INDEX:
        return f'it takes 1 to {INDEX} elements, not {elements}'
    if not runtime.on_cpu(device):
        return 'it is made for the CPU'
    return runtime.vector_reason(device)


def gelu_grn_(x: Tensor, gamma: Tensor, eps: float) -> Tensor:
    """GELU (exact) and GRN in the memory of ``x``, without gradients.

    Args:
        x (Tensor): f32 ``(B, H, W, C)`` on the CPU, contiguous, at a whole
            vector's address; see :func:`reason`.
        gamma (Tensor): f32, ``C`` elements.
        eps (float): Added to the mean of the norms.

    Returns:
        Tensor: ``x``.
    """
    B, H, W, C = x.shape
    lanes = vector_lanes()
    plan = _plan(B, H * W, C, eps, lanes)
    if gamma.data_ptr() % (4 * lanes):
        gamma = gamma.clone()
    with runtime.launching(x.device):
        launcher.call(_kernel(lanes), x.view(-1, lanes),
                      gamma.view(-1, lanes), plan.sums, plan.eps, B, H * W,
                      C // lanes, plan.parts, kept=plan.kept)
    return x
