"""Launches of the kernels for strips with a lane a channel."""
from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from . import channel_strips, launcher, runtime
from .channel_sums import ROWS
from .cook_toom import matrices
from .fused import LISTS
from .fused_launch import TAPS
from .lanes import INDEX, TILE
from .memory import TASKS, aligned, scratch, vector_lanes

__all__ = ['Strips', 'reason', 'forward', 'deployed']


class Strips(NamedTuple):
    """Strips as the kernels read them.

    Attributes:
        products (Tensor): Weights of the products of the short convolution,
            ``(ceil(C / lanes) * (2 * (L + 1) + N + 1) * size, lanes)``, of
            the outputs ``v, i, h``; behind each a place of zeros.
        taps (int): ``N``.
        places (int): ``L``, of a strip.
        before (int): Place 0 of a strip sits at ``-before``.
    """

    products: Tensor
    taps: int
    places: int
    before: int

    @classmethod
    def of(cls, strip_h: Tensor, strip_v: Tensor, before: int,
           small: Tensor | None = None) -> Strips:
        """Kernels on the CPU as the kernels here read them.

        Args:
            strip_h (Tensor): ``(C, 1, N, L)``.
            strip_v (Tensor): ``(C, 1, L, N)``.
            before (int): Place 0 of a strip sits at ``-before``.
            small (Tensor, optional): Of output ``i``, ``(C, 1, N, N)``; zero
                if None. Defaults to None.
        """
        channels, _, taps, places = strip_h.shape
        if small is None:
            small = strip_h.new_zeros(channels, 1, taps, taps)
        short = torch.tensor(matrices(TILE, taps)[1], dtype=torch.float64,
                             device='cpu')
        products = torch.cat([
            torch.constant_pad_nd(t.squeeze(1).double() @ short.t(),
                                  (0, 0, 0, 1))
            for t in (strip_v, small, strip_h.transpose(2, 3))], 1)
        width = vector_lanes()
        first = torch.arange(0, channels, width, device='cpu')
        # The last vector reaches back into the one before.
        lanes = first.clamp(max=channels - width)[:, None] + torch.arange(
            width, device='cpu')
        products = products[lanes].flatten(2).transpose(1, 2)
        store = aligned(products.numel(), torch.float32).view(-1, width)
        store.copy_(products.reshape(-1, width))
        return cls(store, taps, places, before)


def reason(x: Tensor, taps: int, places: int) -> str | None:
    """Why the kernel cannot take ``x`` with strips of this size, or None."""
    if taps not in TAPS:
        allowed = ' and '.join(map(str, TAPS))
        return f'it is made for small kernels of {allowed}, not {taps}'
    lanes, channels = vector_lanes(), x.shape[1]
    if channels < lanes:
        return f'it takes {lanes} channels at least, not {channels}'
    elements = (channels + lanes) * max(
        x.numel() // channels,
        (2 * (places + 1) + taps + 1) * (TILE + taps - 1))
    if elements > INDEX:
        return f'it indexes at most {INDEX} elements, got {elements}'
    return runtime.vector_reason(x.device)


class _Plan(NamedTuple):
    """What a launch needs that does not depend on the tensors."""
    sizes: Tensor
    planes: Tensor  # of the lanes, in quads behind the first
    scratch: int  # floats
    tasks: int


@lru_cache(maxsize=1024)
def _plan(shape: torch.Size, taps: int, places: int, before: int,
          outputs: str, threads: int, width: int) -> _Plan:
    """Sizes of a launch; without ``outputs`` of a deployed layer."""
    B, C, H, W = shape
    size, vectors = TILE + taps - 1, -(-C // width)
    share = size * (max(H, W) + 3 * ROWS) + (2 * H * W if outputs else 0)
    numbers = dict(items=B * vectors, images=B, channels=C, height=H, width=W,
                   places=places, before=before, share=share,
                   wanted=sum(1 << LISTS.index(name) for name in outputs))
    with torch.inference_mode(False):
        sizes = torch.tensor(
            [numbers[name] for name in channel_strips.SIZES],
            dtype=torch.int32, device='cpu')
        planes = torch.arange(width, dtype=torch.int32,
                              device='cpu') * (H * W // TILE)
    # Items are few and alike: with as many tasks none waits for two. Large
    # planes take 64 MB, or one a thread.
    tasks = min(2 * TASKS * threads, B * vectors, INDEX // (share * width),
                max(threads, 2**24 // (share * width)))
    return _Plan(sizes, planes, tasks * share * width, tasks)


def forward(x: Tensor, strips: Strips, outputs: str) -> list[Tensor]:
    """The convolutions with strips.

    Args:
        x (Tensor): f32 ``(B, C, H, W)`` on the CPU, without grad;
            ``H * W`` a multiple of 4.
        strips (Strips): The weights.
        outputs (str): Those of ``'vih'`` that are wanted, in this order.

    Returns:
        list[Tensor]: One ``(B, C, H, W)`` for each.
    """
    width = strips.products.shape[1]
    out = [x.new_empty(x.shape) for _ in outputs]
    if x.numel():
        plan = _plan(x.shape, strips.taps, strips.places, strips.before,
                     outputs, torch.get_num_threads(), width)
        x = x.contiguous()
        if x.data_ptr() % (4 * TILE):
            x = x.clone()
        source = x.view(-1, TILE)
        given = {name: o.view(-1, TILE)
                 for name, o in zip(outputs, out, strict=True)}
        with runtime.launching(x.device):
            launcher.call(
                channel_strips.forward_kernel(strips.taps, width), source,
                *(given.get(name, source) for name in LISTS),
                strips.products, plan.planes, plan.sizes,
                *scratch(plan.scratch, width), plan.tasks)
    return out


def deployed(x: Tensor, strips: Strips, bias: Tensor) -> Tensor:
    """The sum of both strips' outputs and a bias.

    Args:
        x (Tensor): f32 ``(B, C, H, W)`` on the CPU, without grad.
        strips (Strips): The weights.
        bias (Tensor): f32 ``(C,)``.

    Returns:
        Tensor: ``(B, C, H, W)`` in ``channels_last``.
    """
    B, C, H, W = x.shape
    width = strips.products.shape[1]
    out = x.new_empty(B, H, W, -(-C // width) * width)
    if x.numel():
        plan = _plan(x.shape, strips.taps, strips.places, strips.before, '',
                     torch.get_num_threads(), width)
        with runtime.launching(x.device):
            launcher.call(
                channel_strips.deployed_kernel(strips.taps, width),
                x.permute(0, 2, 3, 1).contiguous().view(-1),
                out.view(-1, width), strips.products, bias.contiguous(),
                plan.sizes, scratch(plan.scratch, width)[0], plan.tasks)
    if C % width:
        whole = C // width * width
        out = torch.cat([out[..., :whole], out[..., whole - C:]], -1)
    return out.permute(0, 3, 1, 2)
