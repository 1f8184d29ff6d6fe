r"""Layer norm over the channels and GELU in one launch, on the CPU.

.. math::
    y_{pc} = \mathrm{GELU}\left(w_c \frac{x_{pc} - \bar x_p}
    {\sqrt{\overline{(x_p - \bar x_p)^2} + \epsilon}} + b_c\right)

for each place ``p``, with the means over its channels, in place: one pass over
memory instead of two, each with a tensor of its own.
"""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache, lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from . import launcher, runtime
from .gelu import gelu
from .lane_sums import sums
from .lanes import INDEX, layout
from .memory import lanes_within

__all__ = ['norm_gelu_', 'reason']

_TASKS = 32
BLOCK = 16  # places


@cache
def _kernel(lanes: int):
    """Compiles the kernel for vectors of so many channels."""
    import taichi as ti
    types = layout(3, lanes)
    vec, activate, total = types.vec, gelu(), sums(3, lanes).total

    @ti.kernel
    def norm_gelu(
            x: types.Vectors,  # (places, vectors)
            weight: types.Vectors,  # (vectors,)
            bias: types.Vectors,  # (vectors,)
            eps: types.Floats,  # one
            room: types.Floats,  # (tasks, 2 * BLOCK)
            places: ti.i32, vectors: ti.i32, tasks: ti.i32):
        # Taichi gives a core at least 512 turns of a loop.
        for turn in range(512 * tasks):
            if (turn & 511) == 0:
                task, each = turn >> 9, (places + tasks - 1) // tasks
                share = 1.0 / (vectors * lanes)
                means = (task * (2 * BLOCK)) & INDEX
                scales = means + BLOCK
                last = ti.min(places, task * each + each)
                for block in range((each + BLOCK - 1) // BLOCK):
                    first = task * each + block * BLOCK
                    count = ti.min(BLOCK, last - first)
                    # A place by itself would be one chain of operations.
                    for p in range(count):
                        row, whole = (first + p) * vectors, vec(0.0)
                        for v in range(vectors):
                            whole += x[(row + v) & INDEX]
                        room[means + p] = total(whole) * share
                    for p in range(count):
                        row, squares = (first + p) * vectors, vec(0.0)
                        mean = room[means + p]
                        for v in range(vectors):
                            apart = x[(row + v) & INDEX] - mean
                            squares += apart * apart
                        room[scales + p] = 1.0 / ti.sqrt(
                            total(squares) * share + eps[0])
                    for p in range(count):
                        row = (first + p) * vectors
                        mean, scale = room[means + p], room[scales + p]
                        for v in range(vectors):
                            at = (row + v) & INDEX
                            x[at] = activate(
                                (x[at] - mean) * scale * weight[v] + bias[v])

    return norm_gelu


class _Plan(NamedTuple):
    """What a launch needs that does not depend on the tensors."""
    eps: Tensor
    room: Tensor
    kept: launcher.Kept


@lru_cache(maxsize=256)
def _plan(shape: torch.Size, eps: float, lanes: int) -> _Plan:
    with torch.inference_mode(False):
        return _Plan(torch.tensor([eps], device='cpu'),
                     torch.empty(_TASKS * 2 * BLOCK, device='cpu'),
                     launcher.Kept())


def reason(x: Tensor) -> str | None:
    """Why the kernel cannot take a tensor like ``x``, or None."""
    lanes = lanes_within(x.shape[1])
    if not x.is_contiguous(memory_format=torch.channels_last) or \
            x.data_ptr() % (4 * lanes):
        return 'it takes channels_last tensors at the address of a vector'
    if x.shape[1] % lanes:
        return f'it takes multiples of {lanes} channels, not {x.shape[1]}'
    if not 0 < x.numel() <= INDEX:
        return f'it takes 1 to {INDEX} elements, not {x.numel()}'
    if not runtime.on_cpu(x.device):
        return 'it is made for the CPU'
    return runtime.vector_reason(x.device)


def norm_gelu_(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Layer norm and GELU (exact) in the memory of ``x``, without gradients.

    Args:
        x (Tensor): f32 ``(B, C, H, W)`` of which :func:`reason` is None.
        weight, bias (Tensor): f32 ``(C,)``.
        eps (float): Added to the variance.

    Returns:
        Tensor: ``x``.
    """
    B, C, H, W = x.shape
    lanes = lanes_within(C)
    plan = _plan(x.shape, eps, lanes)
    weight, bias = (t.clone() if t.data_ptr() % (4 * lanes) else t
                    for t in (weight, bias))
    with runtime.launching(x.device):
        launcher.call(_kernel(lanes),
                      x.permute(0, 2, 3, 1).view(-1, lanes),
                      weight.view(-1, lanes), bias.view(-1, lanes), plan.eps,
                      plan.room, B * H * W, C // lanes, _TASKS, kept=plan.kept)
    return x
