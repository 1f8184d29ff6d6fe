"""Launches of the kernels for strips with a lane a channel."""
from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from . import channel_strips, launcher, runtime
from .channel_sums import ROWS
from .fused import LISTS
from .fused_launch import TAPS
from .lanes import INDEX, TILE
from .memory import TASKS, scratch, vector_lanes

__all__ = [
    'Strips', 'Excitation', 'Deployed', 'reason', 'excitation_reason',
    'forward'
]


def _f32(tensor: Tensor) -> Tensor:
    """As kernels read it; most are, and calls that change nothing add up."""
    if tensor.dtype != torch.float32:
        tensor = tensor.float()
    return tensor if tensor.is_contiguous() else tensor.contiguous()


class Strips(NamedTuple):
    """Strips as the kernels read them: f32, contiguous.

    Attributes:
        h (Tensor): ``(C, 1, N, L)``.
        v (Tensor): ``(C, 1, L, N)``.
        small (Tensor): Of output ``i``, ``(C, 1, N, N)``; if there is none
            that output cannot be wanted, and this is anything.
        before (int): Place 0 of a strip sits at ``-before``.
    """

    h: Tensor
    v: Tensor
    small: Tensor
    before: int

    @classmethod
    def of(cls, strip_h: Tensor, strip_v: Tensor, before: int,
           small: Tensor | None = None) -> Strips:
        """These kernels on the CPU, copied only if they have to be."""
        h, v = _f32(strip_h), _f32(strip_v)
        return cls(h, v, v if small is None else _f32(small), before)


class Excitation(NamedTuple):
    """A layer of squeeze and excitation as the kernels read it.

    Attributes:
        down (Tensor): ``(hidden, C)``, or as a 1x1 convolution has it.
        down_bias (Tensor): ``(hidden,)``.
        up (Tensor): ``(C, hidden)``, likewise.
        up_bias (Tensor): ``(C,)``.
    """

    down: Tensor
    down_bias: Tensor
    up: Tensor
    up_bias: Tensor


def excitation_reason(channels: int, hidden: int) -> str | None:
    """Why the kernel cannot do this excitation as well, or None."""
    lanes = vector_lanes()
    if channels % lanes or hidden < lanes:
        return (f'it takes multiples of {lanes} channels and {lanes} hidden '
                f'ones at least, not {channels} and {hidden}')
    return None


def reason(x: Tensor, taps: int, places: int) -> str | None:
    """Why the kernel cannot take ``x`` with strips of this size, or None."""
    if taps not in TAPS:
        allowed = ' and '.join(map(str, TAPS))
        return f'it is made for small kernels of {allowed}, not {taps}'
    lanes, channels = vector_lanes(), x.shape[1]
    if channels < lanes:
        return f'it takes {lanes} channels at least, not {channels}'
    B, C, H, W = x.shape
    elements = max((C + lanes) * max(B * H * W, places * taps),
                   _share(H, W, taps, places) * lanes)
    if elements > INDEX:
        return f'it indexes at most {INDEX} elements, got {elements}'
    return runtime.vector_reason(x.device)


def _share(H: int, W: int, taps: int, places: int) -> int:
    """Vectors of scratch that one task needs."""
    size, (high, wide) = TILE + taps - 1, (
        -(-side // TILE) * TILE for side in (H, W))
    weights = 2 * places + taps + 3 * 2 * ROWS
    products = max(H, W) + ROWS + 1
    return (size * (weights + products) + high * wide +
            (high + taps - 1) * (wide + taps - 1))


class _Plan(NamedTuple):
    """What a launch needs that does not depend on the tensors."""
    sizes: Tensor
    planes: Tensor  # of the lanes, in quads behind the first
    taken: Tensor  # which slots of the scratch are in use
    scratch: int  # floats
    tasks: int
    kept: launcher.Kept
    means: Tensor  # and what else an excitation needs, if there is one
    room: Tensor


@lru_cache(maxsize=1024)
def _plan(shape: torch.Size, taps: int, places: int, before: int,
          outputs: str, threads: int, width: int, hidden: int = 0) -> _Plan:
    """Sizes of a launch; without ``outputs`` of a deployed layer, which has an
    excitation if anything is ``hidden``.
    """
    B, C, H, W = shape
    vectors, share = -(-C // width), _share(H, W, taps, places)
    # A task has one vector of channels, and all images where vectors do.
    each = -(-B // min(-(-2 * TASKS * threads // vectors), B))
    tasks = vectors * -(-B // each)
    # Of large planes 64 MB, or one a thread, as far as indices reach.
    slots = min(runtime.threads(), tasks, INDEX // (share * width),
                max(threads, 2**24 // (share * width)))
    parts = 0
    if hidden:  # each part makes the factors of its image anew
        parts = max(min(-(-TASKS * threads // B), H * W // (2 * hidden)), 1)
    numbers = dict(slots=slots, images=B, channels=C, height=H, width=W,
                   places=places, before=before, share=share,
                   wanted=sum(1 << LISTS.index(name) for name in outputs),
                   each=each, hidden=hidden, parts=parts)
    with torch.inference_mode(False):
        sizes = torch.tensor(
            [numbers[name] for name in channel_strips.SIZES],
            dtype=torch.int32, device='cpu')
        planes = torch.arange(width, dtype=torch.int32,
                              device='cpu') * (H * W // TILE)
        taken = torch.zeros(slots, dtype=torch.int32, device='cpu')
        means = torch.empty(B * C if hidden else 0, device='cpu')
        room = torch.empty(B * parts * (2 * hidden + C), device='cpu')
    return _Plan(sizes, planes, taken, slots * share * width, tasks,
                 launcher.Kept(), means, room)


def forward(x: Tensor, strips: Strips, outputs: str) -> list[Tensor]:
    """The convolutions with strips.

    Args:
        x (Tensor): f32 ``(B, C, H, W)`` on the CPU;
            ``H * W`` a multiple of 4.
        strips (Strips): The weights.
        outputs (str): Those of ``'vih'`` that are wanted, in this order.

    Returns:
        list[Tensor]: One ``(B, C, H, W)`` for each.
    """
    width, (taps, places) = vector_lanes(), strips.h.shape[2:]
    out = [x.new_empty(x.shape) for _ in outputs]
    if x.numel():
        plan = _plan(x.shape, taps, places, strips.before, outputs,
                     torch.get_num_threads(), width)
        x = x.contiguous()
        if x.data_ptr() % (4 * TILE):
            x = x.clone()
        source = x.view(-1, TILE)
        given = {name: o.view(-1, TILE)
                 for name, o in zip(outputs, out, strict=True)}
        with runtime.launching(x.device):
            launcher.call(
                channel_strips.forward_kernel(taps, width), source,
                *(given.get(name, source) for name in LISTS),
                strips.v.view(-1), strips.small.view(-1), strips.h.view(-1),
                plan.planes, plan.sizes, plan.taken,
                scratch(plan.scratch, width)[0], plan.tasks, kept=plan.kept)
    return out


class Deployed:
    """The sum of both strips' outputs and a bias, for inputs of one shape.

    It reads the weights in each call. What else a launch needs it makes
    once, for between call and launch that would take 0.2 ms where caches are
    cold, as they are in a network.

    Args:
        shape (torch.Size): ``(B, C, H, W)``.
        strips (Strips): The weights.
        bias (Tensor): ``(C,)``.
        excitation (Excitation, optional): What follows; see
            :func:`excitation_reason`. Defaults to None.
    """

    def __init__(self, shape: torch.Size, strips: Strips, bias: Tensor,
                 excitation: Excitation | None = None) -> None:
        self._width = width = vector_lanes()
        self._padding = -shape[1] % width
        self._kept = launcher.Kept()
        if not shape.numel():
            return
        taps, places = strips.h.shape[2:]
        bias, hidden = _f32(bias), 0
        down = down_bias = up = up_bias = bias
        if excitation is not None:
            down, down_bias, up, up_bias = map(_f32, excitation)
            hidden = len(down)
        self._plan = plan = _plan(shape, taps, places, strips.before, '',
                                  torch.get_num_threads(), width, hidden)
        self._kind = taps, width, hidden > 0
        self._weights = [t.view(-1) for t in (
            strips.v, strips.h, bias, down, down_bias, up, up_bias)]
        self._rest = plan.means, plan.room, plan.sizes, plan.taken
        self._scratch = 2 + len(self._weights) + len(self._rest)  # its place

    def __call__(self, x: Tensor) -> Tensor:
        """The layer.

        Args:
            x (Tensor): f32 on the CPU.

        Returns:
            Tensor: f32 ``(B, C, H, W)`` in ``channels_last``.
        """
        kept, width = self._kept, self._width
        if not x.is_contiguous(memory_format=torch.channels_last):
            x = x.contiguous(memory_format=torch.channels_last)
        if not self._padding:
            out = torch.empty_like(x)
        else:
            B, C, H, W = x.shape
            out = x.new_empty(B, H, W, C + self._padding).permute(0, 3, 1, 2)
        if x.numel():
            with runtime.launching(x.device):
                vectors, _ = scratch(self._plan.scratch, width)
                if kept.is_live():
                    kept.again({0: x.data_ptr(), 1: out.data_ptr(),
                                self._scratch: vectors.data_ptr()})
                else:
                    flat, vectors_out = (
                        t.permute(0, 2, 3, 1).reshape(shape)
                        for t, shape in ((x, (-1, )), (out, (-1, width))))
                    launcher.call(
                        channel_strips.deployed_kernel(*self._kind), flat,
                        vectors_out, *self._weights, *self._rest, vectors,
                        self._plan.tasks, kept=kept)
        if self._padding:
            whole = C // width * width
            out = torch.cat([out[:, :whole], out[:, whole - C:]], 1)
        return out
