r"""Shift-wise convolution without its k-fold intermediate, for a GPU.

The sums are those of :mod:`fused`, of the same lists of taps, in another
shape: a thread computes ``ROWS`` outputs below each other, so neighbours read
neighbours, and a tap is a few columns of ``N + ROWS - 1`` values, each of
which serves up to ``N`` products. In both directions: down the columns the
kernel's rows lie along the shift, along the rows its columns do.

The gradient of ``x`` is the same kernel with flipped taps, summed over the
lists. For that of the weights a thread keeps one column of one tap and takes
every ``workers``-th place of the channel; what the workers have is summed
afterwards. Every sum has one thread and a fixed order, so results are
deterministic and need no atomics. Nothing here is for one kind of GPU:
neither shared memory nor warps are used.

``f32`` and ``f64`` accumulate in their own type, ``f16`` in ``f32``; ``N`` is
any odd number.
"""
# No `from __future__ import annotations`: Taichi reads the annotations.
from functools import cache

import torch
from torch import Tensor

from . import runtime
from .fused_launch import Taps
from .shift_add import DTYPES, MAX_ELEMENTS, ndarray_types

__all__ = ['DTYPES', 'MAX_ELEMENTS', 'WARP', 'forward', 'backward']

ROWS = 4  # outputs of a thread
WARP = 32  # the least number of workers: neighbours share a tap
_THREADS = 2**18  # as many as the largest GPUs hold at a time


@cache
def _conv_kernel(taps: int, dtype: torch.dtype, summed: bool):
    """Compiles the convolution, of one input or summed over the lists.

    Args:
        taps (int): ``N``.
        dtype (torch.dtype): Of the data.
        summed (bool): Whether each list has an input of its own and all add
            to the first output (the gradient), or each list has an output.
    """
    import taichi as ti
    Data, Index, data, acc = ndarray_types(dtype)
    Sums = ti.types.ndarray(dtype=acc, ndim=1)
    rows, column = (ti.types.vector(n, acc) for n in (ROWS, taps))
    reach = taps + ROWS - 1

    @ti.func
    def add_taps(total, source: ti.template(), weight: ti.template(),
                 offset: ti.template(), first, last, base, h, w, H, W,
                 down: ti.template()):
        result = total
        for t in range(first, last):
            row, left, step, stride = h - taps // 2, w + offset[t], taps, 1
            if ti.static(down):
                row, left, step, stride = h + offset[t], w - taps // 2, 1, taps
            if row > -reach and row < H:
                for q in range(taps):
                    u = left + q
                    if u >= 0 and u < W:
                        factor = column(0)
                        for m in ti.static(range(taps)):
                            factor[m] = weight[t * taps * taps + q * step +
                                               m * stride]
                        for i in ti.static(range(reach)):
                            value = ti.cast(0, acc)
                            if row + i >= 0 and row + i < H:
                                value = ti.cast(
                                    source[base + (row + i) * W + u], acc)
                            for m in ti.static(range(taps)):
                                if ti.static(0 <= i - m < ROWS):
                                    result[i - m] += factor[m] * value
        return result

    @ti.func
    def put(target: ti.template(), base, h, w, H, W, total):
        for i in ti.static(range(ROWS)):
            if h + i < H:
                target[base + (h + i) * W + w] = ti.cast(total[i], data)

    @ti.kernel
    def fused_gpu(
            in_v: Data,  # (B, C, H, W), as the next five
            in_i: Data, in_h: Data, out_v: Data, out_i: Data, out_h: Data,
            weight: Sums,  # (entries, N, N)
            offset: Index,  # (entries,)
            start: Index,  # (3, C) of the lists, and the end
            B: ti.i32, C: ti.i32, H: ti.i32, W: ti.i32, wanted: ti.i32):
        blocks = (H + ROWS - 1) // ROWS
        for n in range(B * C * blocks * W):
            w = n % W
            h = (n // W) % blocks * ROWS
            c = n // (W * blocks) % C
            base = n // (W * blocks) * (H * W)
            total = rows(0)
            if wanted & 1:
                total = add_taps(total, in_v, weight, offset, start[c],
                                 start[c + 1], base, h, w, H, W, True)
                if ti.static(not summed):
                    put(out_v, base, h, w, H, W, total)
                    total = rows(0)
            if wanted & 2:
                total = add_taps(total, in_i, weight, offset, start[C + c],
                                 start[C + c + 1], base, h, w, H, W, True)
                if ti.static(not summed):
                    put(out_i, base, h, w, H, W, total)
                    total = rows(0)
            if wanted & 4:
                total = add_taps(total, in_h, weight, offset,
                                 start[2 * C + c], start[2 * C + c + 1], base,
                                 h, w, H, W, False)
                if ti.static(not summed):
                    put(out_h, base, h, w, H, W, total)
            if ti.static(summed):
                put(out_v, base, h, w, H, W, total)

    return fused_gpu


@cache
def _weight_kernel(taps: int, dtype: torch.dtype):
    """Compiles the gradient of the taps, one number a worker."""
    import taichi as ti
    Data, Index, _, acc = ndarray_types(dtype)
    Sums = ti.types.ndarray(dtype=acc, ndim=1)
    rows, column = (ti.types.vector(n, acc) for n in (ROWS, taps))
    reach = taps + ROWS - 1

    @ti.kernel
    def fused_gpu_weight(
            x: Data,  # (B, C, H, W), as the next three
            grad_v: Data, grad_i: Data, grad_h: Data,
            offset: Index,  # (entries,)
            owner: Index,  # (entries,), list * C + channel
            sums: Sums,  # (entries, N, N, workers)
            entries: ti.i32, workers: ti.i32, B: ti.i32, C: ti.i32,
            H: ti.i32, W: ti.i32):
        blocks = (H + ROWS - 1) // ROWS
        for n in range(entries * taps * workers):
            worker = n % workers
            q = (n // workers) % taps
            t = n // (workers * taps)
            s = owner[t] // C
            c = owner[t] % C
            down, right, step, stride = -(taps // 2), offset[t], taps, 1
            if s < 2:
                down, right, step, stride = right, down, 1, taps
            total = column(0)
            for turn in range((B * blocks * W - worker - 1) // workers + 1):
                place = worker + turn * workers
                w = place % W
                h = (place // W) % blocks * ROWS
                base = (place // (W * blocks) * C + c) * (H * W)
                u = w + right + q
                if u >= 0 and u < W:
                    grad = rows(0)
                    for i in ti.static(range(ROWS)):
                        if h + i < H:
                            at = base + (h + i) * W + w
                            if s == 0:
                                grad[i] = ti.cast(grad_v[at], acc)
                            elif s == 1:
                                grad[i] = ti.cast(grad_i[at], acc)
                            else:
                                grad[i] = ti.cast(grad_h[at], acc)
                    for i in ti.static(range(reach)):
                        row = h + down + i
                        value = ti.cast(0, acc)
                        if row >= 0 and row < H:
                            value = ti.cast(x[base + row * W + u], acc)
                        for m in ti.static(range(taps)):
                            if ti.static(0 <= i - m < ROWS):
                                total[m] += grad[i - m] * value
            for m in ti.static(range(taps)):
                at = t * taps * taps + q * step + m * stride
                sums[at * workers + worker] = total[m]

    return fused_gpu_weight


_LISTS = 'vih'


def _wanted(outputs: str) -> int:
    """One bit for each list."""
    return sum(1 << _LISTS.index(name) for name in outputs)


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _rows(table: Tensor, which: Tensor) -> Tensor:
    """The sums of the kernels of each row; below zero stands for none."""
    table = torch.cat([table, table.new_zeros(1, *table.shape[1:])])
    return table[which.long()].sum(1)


def _turned(kernels: Tensor, taps: Taps) -> Tensor:
    """With those of the list ``h`` transposed."""
    number = torch.arange(len(kernels), device=kernels.device)
    last = number >= taps.start[2 * (len(taps.start) // 3)]
    return torch.where(last[:, None, None], kernels.transpose(1, 2),
                       kernels).contiguous()


def _gather(weight: Tensor, taps: Taps) -> Tensor:
    """The kernel of each entry, rows along the shift: ``(entries, N, N)``."""
    return _turned(_rows(weight.flatten(0, 1), taps.source), taps)


def _convolve(inputs: dict[str, Tensor], results: list[Tensor],
              weight: Tensor, offset: Tensor, taps: Taps, outputs: str,
              summed: bool) -> None:
    """Launches the convolution; the results are of the lists' order."""
    some = inputs[outputs[0]]
    spare = some.new_zeros(1)
    given = dict(zip(outputs, results, strict=not summed))
    if summed:
        given = {'v': results[0]}
    _conv_kernel(weight.shape[-1], some.dtype, summed)(
        *(inputs.get(name, spare).view(-1) for name in _LISTS),
        *(given.get(name, spare).view(-1) for name in _LISTS),
        weight.view(-1), offset, taps.start, *some.shape, _wanted(outputs))


def forward(x: Tensor, weight: Tensor, taps: Taps,
            outputs: str) -> list[Tensor]:
    """Every output is a depthwise convolution with a list of taps.

    Args:
        x (Tensor): ``(B, C, H, W)``, one of :data:`DTYPES`, without grad.
        weight (Tensor): Small kernels ``(C*k, 1, N, N)``.
        taps (Taps): The lists, on the device of ``x``.
        outputs (str): Those of ``'vih'`` that are wanted, in this order.

    Returns:
        list[Tensor]: One ``(B, C, H, W)`` for each.
    """
    if not taps.offset.numel():
        return [torch.zeros_like(x) for _ in outputs]
    x = x.contiguous()
    out = [x.new_empty(x.shape) for _ in outputs]
    if x.numel():
        kernels = _gather(weight.to(_accumulator(x.dtype)), taps)
        with runtime.launching(x.device):
            _convolve(dict.fromkeys(outputs, x), out, kernels, taps.offset,
                      taps, outputs, False)
    return out


def backward(grads: list[Tensor], x: Tensor, weight: Tensor, taps: Taps,
             outputs: str, need_x: bool,
             need_weight: bool) -> tuple[Tensor, Tensor]:
    """The gradients of :func:`forward`; an empty tensor where not needed.

    Args:
        grads (list[Tensor]): As ``x``, one an output.
        x, weight, taps, outputs: As for :func:`forward`.
        need_x, need_weight (bool): What to compute.
    """
    n = weight.shape[-1]
    grad_x = x.new_empty(x.shape if need_x else 0)
    grad = (torch.zeros_like(weight) if need_weight else weight.new_empty(0))
    if not x.numel():
        return grad_x, grad
    if not taps.offset.numel():
        return grad_x.zero_(), grad
    given = {
        name: g.contiguous()
        for name, g in zip(outputs, grads, strict=True)
    }
    with runtime.launching(x.device):
        if need_x:
            kernels = _gather(weight.to(_accumulator(x.dtype)), taps)
            kernels = kernels.index_select(0, taps.flipped).flip(1, 2)
            _convolve(given, [grad_x], kernels, taps.offset_flipped, taps,
                      outputs, True)
        if need_weight:
            kernels = _correlate(given, x.contiguous(), taps, n)
            grad = _rows(_turned(kernels, taps), taps.used).view_as(
                weight).to(weight.dtype)
    return grad_x, grad


def _correlate(grads: dict[str, Tensor], x: Tensor, taps: Taps,
               n: int) -> Tensor:
    """The gradient of each tap, ``(entries, N, N)``."""
    B, C, H, W = x.shape
    entries = taps.offset.numel()
    places = B * -(-H // ROWS) * W
    workers = min(places, max(WARP, _THREADS // (entries * n)))
    workers = -(-workers // WARP) * WARP
    sums = x.new_empty((entries, n, n, workers),
                       dtype=_accumulator(x.dtype))
    lists = torch.arange(3 * C, device=x.device, dtype=torch.int32)
    owner = lists.repeat_interleave(taps.start.diff(), output_size=entries)
    spare = x.new_zeros(1)
    _weight_kernel(n, x.dtype)(
        x.view(-1), *(grads.get(name, spare).view(-1) for name in _LISTS),
        taps.offset, owner, sums.view(-1), entries, workers, B, C, H, W)
    return sums.sum(-1)
