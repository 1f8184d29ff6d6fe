r"""A bias, GELU and global response normalisation in one launch, on the CPU.

.. math::
    y_{pc} = \mathrm{GELU}(x_{pc} + b_c), \quad
    z_{pc} = y_{pc} \left(1 + \gamma_c
    \frac{\lVert y_{\cdot c} \rVert_2}{\bar g + \epsilon}\right)

with the norms over the places ``p`` of an image and their mean :math:`\bar g`
over its channels, in place. Two passes over the widest tensor of a block; as
operators of torch it is three, and seven calls for a few numbers.

To begin a parallel loop takes Taichi a tenth of a millisecond, for its threads
sleep. Both passes are in one: tasks are taken in order, and those of the
second wait for what those of the first leave. One of these that the system has
interrupted could keep them for long, so that patience ends, and a serial loop
behind does what was put off.
"""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from . import launcher, runtime
from .gelu import gelu
from .lanes import INDEX, layout
from .memory import lanes_within

__all__ = ['gelu_grn_', 'reason']

PATIENCE = 20_000  # turns of waiting, some 0.2 ms
_PARTS = 32  # tasks: results do not depend on the number of threads


@cache
def _kernel(lanes: int):
    """Compiles the kernel for vectors of so many channels."""
    import taichi as ti
    types = layout(3, lanes)
    vec, activate = types.vec, gelu()

    @ti.func
    def squares(x: ti.template(), bias: ti.template(), frm, to, vectors,
                sums: ti.template(), own):
        """GELU of ``x + bias``, and its sums of squares over the places."""
        for v in range(vectors):
            sums[own + v] = vec(0.0)
        for place in range(frm, to):
            row = place * vectors
            for v in range(vectors):
                at, total = (row + v) & INDEX, (own + v) & INDEX
                y = activate(x[at] + bias[v])
                x[at] = y
                sums[total] = sums[total] + y * y  # += would be atomic

    @ti.func
    def factors(gamma: ti.template(), sums: ti.template(), own, vectors,
                parts, eps):
        """What channels are multiplied by, in place of the first sums."""
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
        scale = 1.0 / (scale / (vectors * lanes) + eps)
        for v in range(vectors):
            sums[own + v] = gamma[v] * sums[own + v] * scale + 1.0

    @ti.func
    def multiply(x: ti.template(), frm, to, vectors, sums: ti.template(),
                 own):
        for place in range(frm, to):
            row = place * vectors
            for v in range(vectors):
                at = (row + v) & INDEX
                x[at] = x[at] * sums[(own + v) & INDEX]

    @ti.func
    def is_ready(counts: ti.template(), image, images):
        """Whether the factors of an image are there, within some patience.

        Where it was lost once there is none.
        """
        ready, left = 0, PATIENCE
        while left > 0:
            left -= 1
            if ti.atomic_add(counts[images + image], 0) > 0:
                ready, left = 1, 0
            elif ti.atomic_add(counts[2 * images], 0) > 0:
                left = 0
        if ready == 0:
            ti.atomic_add(counts[2 * images], 1)
        return ready

    @ti.kernel
    def gelu_grn(
            x: types.Vectors,  # (images, places, vectors)
            bias: types.Vectors,  # (vectors,)
            gamma: types.Vectors,  # (vectors,)
            sums: types.Vectors,  # (images, parts, vectors)
            # Parts of each image that ended, whether its factors are there,
            # whether patience was lost, what was put off then.
            counts: types.Ints,
            eps: types.Floats,  # one
            images: ti.i32, places: ti.i32, vectors: ti.i32, parts: ti.i32):
        ti.loop_config(serialize=True)
        for i in range(2 * images + images * parts + 1):
            counts[i] = 0
        # Taichi gives a core at least 512 turns of a loop.
        for turn in range(512 * 2 * images * parts):
            if (turn & 511) == 0:
                task, second = turn >> 9, 0
                if task >= images * parts:
                    task, second = task - images * parts, 1
                image, part = task // parts, task % parts
                own = image * parts * vectors
                frm = image * places + part * places // parts
                to = image * places + (part + 1) * places // parts
                if second == 0:
                    squares(x, bias, frm, to, vectors, sums,
                            own + part * vectors)
                    if ti.atomic_add(counts[image], 1) == parts - 1:
                        factors(gamma, sums, own, vectors, parts, eps[0])
                        ti.atomic_add(counts[images + image], 1)
                elif is_ready(counts, image, images):
                    multiply(x, frm, to, vectors, sums, own)
                else:
                    counts[2 * images + 1 + task] = 1
        ti.loop_config(serialize=True)
        for task in range(images * parts):
            if counts[2 * images + 1 + task]:
                image, part = task // parts, task % parts
                multiply(x, image * places + part * places // parts,
                         image * places + (part + 1) * places // parts,
                         vectors, sums, image * parts * vectors)

    return gelu_grn


class _Plan(NamedTuple):
    """What a launch needs that does not depend on the tensors."""
    sums: Tensor
    counts: Tensor
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
        counts = torch.zeros(images * (2 + parts) + 1, dtype=torch.int32,
                             device='cpu')
        return _Plan(sums, counts, torch.tensor([eps], device='cpu'), parts,
                     launcher.Kept())


def reason(elements: int, channels: int, device: torch.device) -> str | None:
    """Why the kernel cannot take a tensor of this size, or None."""
    lanes = lanes_within(channels)
    if channels % lanes:
        return f'it takes multiples of {lanes} channels, not {channels}'
    if not 0 < elements <= INDEX:
        return f'it takes 1 to {INDEX} elements, not {elements}'
    if not runtime.on_cpu(device):
        return 'it is made for the CPU'
    return runtime.vector_reason(device)


def gelu_grn_(x: Tensor, bias: Tensor, gamma: Tensor, eps: float) -> Tensor:
    """A bias, GELU (exact) and GRN in the memory of ``x``, no gradients.

    Args:
        x (Tensor): f32 ``(B, H, W, C)`` on the CPU, contiguous, at a whole
            vector's address; see :func:`reason`.
        bias, gamma (Tensor): f32, ``C`` elements.
        eps (float): Added to the mean of the norms.

    Returns:
        Tensor: ``x``.
    """
    B, H, W, C = x.shape
    lanes = lanes_within(C)
    plan = _plan(B, H * W, C, eps, lanes)
    bias, gamma = (t.clone() if t.data_ptr() % (4 * lanes) else t
                   for t in (bias, gamma))
    with runtime.launching(x.device):
        launcher.call(_kernel(lanes), x.view(-1, lanes),
                      bias.view(-1, lanes), gamma.view(-1, lanes), plan.sums,
                      plan.counts, plan.eps, B, H * W, C // lanes, plan.parts,
                      kept=plan.kept)
    return x
