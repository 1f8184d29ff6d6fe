"""Launches of the fused kernel for CPUs: lanes, scratch, weights."""
from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from . import fused, launcher, runtime
from .lane_stores import SPANS
from .lanes import INDEX, ROWS, TILE
from .memory import TASKS, aligned, scratch, vector_lanes

__all__ = [
    'TAPS', 'DTYPES', 'MAX_ELEMENTS', 'MAX_SIDE', 'Taps', 'forward',
    'Prepared', 'backward'
]

TAPS = (3, 5)  # small kernels that the kernel is made for
DTYPES = (torch.float32, )
MAX_ELEMENTS = 2**31 - 1  # Taichi indexes with 32 bits
# Of an image: the scratch of one task then has some 2**29.2 floats of the
# INDEX that it may have.
MAX_SIDE = 2**20


class Taps(NamedTuple):
    """The taps that there are: for each list and channel, by falling offset.

    All are int32, and a number below zero stands for none.

    Attributes:
        source (Tensor): ``(entries, reps)``, the small kernels that add up
            to the entry's.
        used (Tensor): ``(C * k, uses)``, the entries of each small kernel.
        offset (Tensor): ``(entries,)``, where each reads.
        flipped (Tensor): ``(entries,)``, the entries with those of each list
            and channel reversed.
        offset_flipped (Tensor): ``(entries,)``, the offset of these with
            their kernels flipped.
        start (Tensor): ``(3 * C + 1,)``, the first entry of each channel in
            the lists ``v, i, h``.
        table (Tensor): All of them in the order in which the CPU's kernels
            read them.
    """
    source: Tensor
    used: Tensor
    offset: Tensor
    flipped: Tensor
    offset_flipped: Tensor
    start: Tensor
    table: Tensor

    @classmethod
    def of(cls, source: Tensor, used: Tensor, offset: Tensor,
           flipped: Tensor, offset_flipped: Tensor, start: Tensor) -> Taps:
        """The lists, of any integers, and their table."""
        lists = [t.int().contiguous() for t in (
            source, used, offset, flipped, offset_flipped, start)]
        source, used, offset, flipped, offset_flipped, start = lists
        table = torch.cat([
            t.view(-1)
            for t in (start, offset, source, flipped, offset_flipped, used)])
        return cls(*lists, table)


class _Layout(NamedTuple):
    """Which tile a lane holds, and where it is.

    Attributes:
        images (int): Whose tiles follow each other.
        groups (tuple[int, int]): Vectors of a row of tiles, down the columns
            and along the rows.
        mask (Tensor): See :data:`~.lanes.MASKS`.
        places (Tensor): Quads of the lanes behind the first of a plane: one
            a vector down the columns, then four a vector along the rows, one
            for each row of a tile. Where there is none, of the last tile (of
            two, if two are written together) and row.
    """
    images: int
    groups: tuple[int, int]
    mask: Tensor
    places: Tensor


def _span(width: int) -> int:
    """How many floats of rows of so many are written together."""
    return max(span for span in SPANS if width % span == 0)


@lru_cache(maxsize=256)
def _layout(shape: tuple[int, int, int, int], lanes: int) -> _Layout:
    """Tables of one shape, whose ``W`` is a multiple of ``TILE``.

    The tiles of a row follow each other in the lanes, and those of the next
    image behind them: as many images as leave the fewest lanes empty.
    """
    B, C, H, W = shape
    both = W // TILE, -(-H // TILE)

    def vectors(images: int) -> list[int]:
        return [-(-images * tiles // lanes) for tiles in both]

    with torch.inference_mode(False), torch.device('cpu'):
        images = min((p for p in range(1, min(B, lanes) + 1) if B % p == 0),
                     key=lambda p: sum(vectors(p)) / p)
        masks, places = [], []
        for tiles, groups, down in zip(both, vectors(images), (True, False),
                                       strict=True):
            number = torch.arange(groups * lanes).view(groups, 1, lanes)
            there = number < images * tiles
            # Of tiles that are written together the last stays behind.
            each = _span(W) // TILE if down else 1
            number = torch.where(there, number,
                                 images * tiles - each + number % each)
            tile = number % tiles
            at = number // tiles * (C * H * W // TILE)
            if down:
                inside = there
                at = at + tile
            else:
                row = tile * TILE + torch.arange(TILE).view(1, TILE, 1)
                inside = there & (row < H)
                at = at + row.clamp(max=H - 1) * (W // TILE)
            places.append(at.view(-1))
            masks.append(torch.cat([
                inside.expand(-1, TILE, -1), there & (tile > 0),
                there & (tile < tiles - 1)], 1))
        places = torch.cat(places).int()
        mask = torch.cat(masks).int()
        store = aligned(mask.numel(), torch.int32).copy_(mask.view(-1))
        return _Layout(images, tuple(map(len, masks)),
                       store.view(-1, lanes), places)


def _quads(tensor: Tensor, width: int) -> Tensor:
    """The tensor ``TILE`` floats at a time, copied if it must be."""
    if tensor.shape[-1] != width:
        tensor = torch.constant_pad_nd(tensor,
                                       (0, width - tensor.shape[-1]))
    tensor = tensor.contiguous()
    if tensor.data_ptr() % (4 * TILE):
        tensor = tensor.clone()
    return tensor.view(-1, TILE)


class _Plan(NamedTuple):
    """What a launch needs that does not depend on the tensors."""
    lanes: int
    width: int  # of a row, filled up
    span: int  # floats that are written together
    parts: int  # of the weights' gradients, one a few images
    mask: Tensor
    places: Tensor
    sizes: Tensor
    scratch: int  # floats
    tasks: int
    kept: launcher.Kept


@lru_cache(maxsize=1024)
def _plan(shape: torch.Size, n: int, taps: int, reps: int, uses: int,
          outputs: str, need_x: bool, need_weight: bool, threads: int,
          lanes: int, entries: int) -> _Plan:
    """Sizes of a launch for ``taps`` small kernels a channel.

    Of the lists with so many ``entries``: tensors are of the same sizes
    whenever there is the same plan.
    """
    B, C, H, W = shape
    width = -(-W // TILE) * TILE
    layout = _layout((B, C, H, width), lanes)
    length = -(-max(H, width) // ROWS) * ROWS
    size = TILE + n - 1
    planes = 4 if need_x or need_weight else 1  # and a block of sums
    # The products of a channel's entries, and a kernel behind them.
    floats = (2 * taps + 1) * n * size + n * n
    floats = -(-floats // lanes) * lanes
    # Rows of tiles and what is beside them, planes, the weights.
    share = (4 * length + 4 * length // lanes + floats // lanes +
             size * (planes * (length + 2 * (ROWS + n - 2)) + ROWS))
    parts = B // layout.images
    sizes = dict(
        share=share, floats=floats, items=parts * C, parts=parts,
        images=layout.images, groups_v=layout.groups[0],
        groups_h=layout.groups[1], channels=C, height=H, quads=width // TILE,
        reps=reps, uses=uses, taps=taps,
        wanted=sum(1 << fused.LISTS.index(name) for name in outputs),
        need_x=need_x, need_weight=need_weight)
    with torch.inference_mode(False):
        numbers = torch.tensor([sizes[name] for name in fused.SIZES],
                               dtype=torch.int32, device='cpu')
    tasks = min(TASKS * threads, INDEX // (share * lanes))
    return _Plan(lanes, width, _span(width), parts, layout.mask,
                 layout.places, numbers, tasks * share * lanes, tasks,
                 launcher.Kept())


def _planned(x: Tensor, weight: Tensor, taps: Taps, outputs: str,
             need_x: bool = False,
             need_weight: bool = False) -> _Plan:
    return _plan(x.shape, weight.shape[-1], len(weight) // x.shape[1],
                 taps.source.shape[1], taps.used.shape[1], outputs, need_x,
                 need_weight, torch.get_num_threads(), vector_lanes(),
                 len(taps.table))


def forward(x: Tensor, weight: Tensor, taps: Taps,
            outputs: str) -> list[Tensor]:
    """The outputs of all lists.

    Args:
        x (Tensor): f32 ``(B, C, H, W)`` on the CPU, without grad.
        weight (Tensor): f32 small kernels, ``(C*k, 1, N, N)``.
        taps (Taps): The lists.
        outputs (str): Those of ``'vih'`` that are wanted, in this order.

    Returns:
        list[Tensor]: One ``(B, C, H, W)`` for each.
    """
    if not len(x):
        return [x.new_empty(x.shape) for _ in outputs]
    launch, W = Prepared(x, weight, taps, outputs), x.shape[-1]
    out = launch(_quads(x, launch.width).view(*x.shape[:-1], -1), weight)
    return [o if W == launch.width else o[..., :W].contiguous() for o in out]


class Prepared:
    """:func:`forward` for tensors of one shape and the same taps.

    What a launch needs beside the tensors is made once.

    Args:
        x, weight, taps, outputs: As for :func:`forward`, ``x`` not empty.

    Attributes:
        width (int): Of a row, filled up to a multiple of
            :data:`~.lanes.TILE`.
    """

    def __init__(self, x: Tensor, weight: Tensor, taps: Taps,
                 outputs: str) -> None:
        self._plan = _planned(x, weight, taps, outputs)
        self._table = taps.table
        self._places = [1 + fused.LISTS.index(name) for name in outputs]
        self.width = self._plan.width

    def __call__(self, x: Tensor, weight: Tensor) -> list[Tensor]:
        """The outputs, of the shape of ``x``.

        Args:
            x (Tensor): Contiguous with rows of ``width``, aligned to 16
                bytes.
            weight (Tensor): Contiguous.
        """
        plan, kept = self._plan, self._plan.kept
        out = [torch.empty_like(x) for _ in self._places]
        with runtime.launching(x.device):
            vectors, floats = scratch(plan.scratch, plan.lanes)
            if kept.is_live():
                kept.again({
                    0: x.data_ptr(), 4: weight.data_ptr(),
                    5: self._table.data_ptr(), 9: vectors.data_ptr(),
                    10: floats.data_ptr(),
                    **{place: o.data_ptr()
                       for place, o in zip(self._places, out, strict=True)}})
            else:
                given = dict(zip(self._places, out, strict=True))
                launcher.call(
                    fused.forward_kernel(weight.shape[-1], plan.lanes,
                                         plan.span), x.view(-1, TILE),
                    *(given.get(1 + i, out[0]).view(-1, plan.span)
                      for i in range(len(fused.LISTS))), weight.view(-1),
                    self._table, plan.mask, plan.places, plan.sizes, vectors,
                    floats, plan.tasks, kept=kept)
        return out


def backward(grads: list[Tensor], x: Tensor, weight: Tensor, taps: Taps,
             outputs: str, need_x: bool,
             need_weight: bool) -> tuple[Tensor, Tensor]:
    """The gradients of :func:`forward`; an empty tensor where not needed.

    Args:
        grads (list[Tensor]): f32 ``(B, C, H, W)``, one an output.
        x, weight, taps, outputs: As for :func:`forward`.
        need_x, need_weight (bool): What to compute.
    """
    B, C, H, W = x.shape
    n = weight.shape[-1]
    if not B:
        return (x.new_empty(x.shape if need_x else 0),
                torch.zeros_like(weight) if need_weight else x.new_empty(0))
    plan = _planned(x, weight, taps, outputs, need_x, need_weight)
    width = plan.width
    grad_x = x.new_empty((B, C, H, width) if need_x else 0)
    grad = weight.new_empty(weight.shape if need_weight else 0)
    entries = taps.offset.numel() if need_weight else 0
    sums = x.new_empty(entries * n * (plan.parts * (TILE + n - 1) + n))
    given = {
        name: _quads(g, width)
        for name, g in zip(outputs, grads, strict=True)
    }
    spare = given[outputs[0]]
    source = _quads(x, width) if need_weight else spare
    target = (grad_x if need_x else x.new_empty(plan.span)).view(
        -1, plan.span)
    with runtime.launching(x.device):
        launcher.call(
            fused.backward_kernel(n, plan.lanes, plan.span), source,
            *(given.get(name, spare) for name in fused.LISTS), target,
            weight.view(-1), grad.view(-1), taps.table, sums, plan.mask,
            plan.places, plan.sizes, *scratch(plan.scratch, plan.lanes),
            plan.tasks, kept=plan.kept)
    if need_x and W != width:
        grad_x = grad_x[..., :W].contiguous()
    return grad_x, grad
