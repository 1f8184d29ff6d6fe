r"""The exact strip form: shift-add without its k-fold intermediate.

Because convolution and shift-add are linear, ``out_H`` is one depthwise
convolution of ``x`` with an ``N x (kN)`` strip whose columns
``iN .. iN+N-1`` hold the weights of the taps at offset ``o_i``, summed over
the repetitions; column 0 sits at offset ``-(M // 2)``. ``out_V`` is its
transpose, ``out_I`` one ``N x N`` kernel.
"""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from shiftwise_mm.kernels.capability import has_avx2_only

from .linear import onednn_takes
from .masks import has_values
from .spec import ShiftSpec

__all__ = ['placement', 'strip_weights', 'strip_conv', 'strip_pair_conv',
           'rows_are_faster']


def _exporting() -> bool:
    return torch.jit.is_tracing() or torch.compiler.is_exporting()


def placement(spec: ShiftSpec, name: str, like: Tensor) -> Tensor:
    """How often tap ``j`` lies at position ``i``: ``(C, positions, k)``.

    A matrix product with it builds the strip, and its transpose the gradient:
    deterministic both ways, on every device.
    """

    def make() -> Tensor:
        if name == 'i':
            positions = spec.identity_tap.unsqueeze(-1)  # (R, C, 1)
        else:
            positions = spec.perm_h if name == 'h' else spec.perm_v
        taps = torch.arange(spec.num_taps, device='cpu')
        count = (positions.unsqueeze(-1) == taps).sum(0)  # (C, pos, k)
        return count.to(like.device, like.dtype)

    return spec.cached(('strip', name, like.device, like.dtype), make)


def strip_weights(weight: Tensor, spec: ShiftSpec, name: str) -> Tensor:
    """The kernel of one output's depthwise convolution.

    Args:
        weight (Tensor): Small kernels ``(C*k, 1, N, N)``.
        spec (ShiftSpec): Sizes and tables.
        name (str): ``'h'``, ``'v'`` or ``'i'``.

    Returns:
        Tensor: ``(C, 1, N, k*N)`` for ``'h'``, ``(C, 1, k*N, N)`` for
        ``'v'``, ``(C, 1, N, N)`` for ``'i'``.
    """
    c, k, n = spec.channels, spec.num_taps, spec.small_kernel
    placed = torch.bmm(placement(spec, name, weight),
                       weight.reshape(c, k, n * n))
    placed = placed.view(c, -1, n, n)  # (C, position, row, column)
    if name == 'h':
        placed = placed.transpose(1, 2)
    return placed.reshape(c, 1, n, -1) if name == 'h' else placed.reshape(
        c, 1, -1, n)


def rows_are_faster(x: Tensor, spec: ShiftSpec) -> bool:
    """Whether inference runs strips as tall kernels over rows, on this CPU.

    oneDNN has two depthwise kernels of float32. That for rows keeps its sums
    in registers, but takes no wide strips: these run as tall ones on the
    transposed tensor. That for channels_last takes both and loads two
    vectors a product; with AVX-512 it is as fast, with AVX2 half as fast.
    Narrow strips over few rows do not pay for transposes.
    """
    return (has_values(x) and has_avx2_only() and x.dtype == torch.float32
            and min(x.shape[2:]) * spec.small_kernel >= 35
            and torch.backends.mkldnn.enabled)


def half_of(before: int, after: int, size: int) -> int:
    """Places beside the centre that can touch an image of ``size``."""
    return min(max(before, after), size - 1)


def fitted_strip(weight: Tensor, before: int, half: int, dim: int) -> Tensor:
    """A strip with ``half`` places before its centre and behind it."""
    sides = [half - before, half - (weight.shape[dim] - 1 - before)]
    if not any(sides):
        return weight
    return F.pad(weight, [0, 0, *sides] if dim == 2 else sides)  # < 0 crops


def _fitted(x: Tensor, weight: Tensor, before: int,
            dim: int) -> tuple[Tensor, list[int], int]:
    """Kernel, symmetric padding, and what it puts in front on ``dim``.

    The kernel gets as many places before its centre as behind it, with zeros
    for those that it has not, and loses those that only ever lie outside the
    image: its convolution has the size of the image. Traces, which would keep
    the size that they saw, get one symmetric padding and then the part
    wanted: faster than padding first.
    """
    after = weight.shape[dim] - 1 - before
    extra = max(after - before, 0)
    if not (torch.jit.is_tracing() or torch.compiler.is_compiling()):
        half, extra = half_of(before, after, x.shape[dim]), 0
        weight = fitted_strip(weight, before, half, dim)
        before = after = half
    padding = [length // 2 for length in weight.shape[2:]]
    padding[dim - 2] = max(before, after)
    return weight, padding, extra


def _conv_along(x: Tensor, weight: Tensor, before: int, dim: int,
                bias: Tensor | None = None) -> Tensor:
    """Depthwise convolution, the kernel's first place on ``dim`` at -before.
    """
    if _exporting():  # one operator, and no view whose strides others check
        other = weight.shape[5 - dim] // 2
        along = (before, weight.shape[dim] - 1 - before)
        around = (other, other)
        x = F.pad(x, (*along, *around) if dim == 3 else (*around, *along))
        return F.conv2d(x, weight, bias, groups=x.shape[1])
    weight, padding, extra = _fitted(x, weight, before, dim)
    out = F.conv2d(x, weight, bias, padding=padding, groups=x.shape[1])
    return out.narrow(dim, extra, x.shape[dim])


def _add_conv_along(out: Tensor, x: Tensor, weight: Tensor, before: int,
                    dim: int) -> Tensor:
    """``out`` and such a convolution; in place where oneDNN can add it."""
    if onednn_takes(x, weight) and \
            torch._C._len_torch_dispatch_stack() == 0:  # counters and such
        weight, padding, _ = _fitted(x, weight, before, dim)
        return torch.ops.mkldnn._convolution_pointwise_.binary(
            out, x, weight, None, padding, [1, 1], [1, 1], x.shape[1], 'add',
            None, None, [], None)
    return out + _conv_along(x, weight, before, dim)


_ROWS = 64  # rows of the gradient in one matrix product


def _correlate_along(x: Tensor, grad: Tensor, length: int, before: int,
                     width: int) -> Tensor:
    r"""Gradient of a tall kernel through matrix products.

    For each column of the kernel, ``P[c, h, u]``, the product of row ``h`` of
    ``grad`` with row ``u`` of ``x`` summed over images and columns, holds
    everything: entry ``a`` of the kernel is the sum of the diagonal
    ``u - h = a - before``. Rows are taken in blocks, so that the cost stays
    linear in the height.

    Args:
        x (Tensor): Input ``(B, C, H, W)``.
        grad (Tensor): Gradient of the output, the same shape.
        length (int): Rows of the kernel.
        before (int): Row 0 of the kernel sits at ``-before``.
        width (int): Columns of the kernel.

    Returns:
        Tensor: ``(C, 1, length, width)``.
    """
    channels, height = x.shape[1:3]
    rows = _by_rows(grad)
    padded = F.pad(x, (width // 2, width // 2))
    columns = []
    for b in range(width):
        part = padded.narrow(3, b, x.shape[3])
        part = _by_rows(part)
        column = x.new_zeros(channels, length)
        for first in range(0, height, _ROWS):
            block = rows[:, first:first + _ROWS]
            start = max(first - before, 0)
            stop = min(first + block.shape[1] + length - 1 - before, height)
            if stop > start:
                sums = _diagonal_sums(
                    torch.bmm(block, part[:, start:stop].transpose(1, 2)))
                # Diagonal d of the block belongs to entry d + shift.
                shift = start - first + before - (block.shape[1] - 1)
                low, high = max(shift, 0), min(shift + sums.shape[1], length)
                column[:, low:high] += sums[:, low - shift:high - shift]
        columns.append(column)
    return torch.stack(columns, -1).unsqueeze(1)


def _by_rows(x: Tensor) -> Tensor:
    """``(B, C, H, W)`` as ``(C, H, B*W)``."""
    x = x.permute(1, 2, 0, 3)
    if torch.compiler.is_compiling():
        # A compiler may think that strides allow a view, and run into others.
        x = x.clone(memory_format=torch.contiguous_format)
    return x.reshape(*x.shape[:2], -1)


def _diagonal_sums(products: Tensor) -> Tensor:
    """Sums of all diagonals, from the lowest: ``(C, T, U) -> (C, T+U-1)``."""
    channels, t, u = products.shape
    # Flipping the rows and reading them with a length shorter by one moves
    # each diagonal into a column.
    skewed = F.pad(products.flip(1), (0, t)).flatten(1)
    return skewed[:, :t * (t + u - 1)].view(channels, t, t + u - 1).sum(1)


class _TallConv(torch.autograd.Function):
    """Depthwise convolution with a tall kernel, its gradients for the CPU.

    The weight gradient of oneDNN (torch 2.13) is wrong for many heights once
    a 3-wide kernel is about 48 rows long (51x3 at 64 rows: off by a quarter
    of its largest value), and 5 to 40 times slower than matrix products in
    the other cases. Its convolution is right and fast, so the data gradient
    is one with the flipped kernel.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type='cpu')  # autocast in both directions
    def forward(ctx, x: Tensor, weight: Tensor, before: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.before = before
        return _conv_along(x, weight, before, 2)

    @staticmethod
    @torch.amp.custom_bwd(device_type='cpu')
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        length, width = weight.shape[2:]
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _conv_along(grad, weight.flip(2, 3),
                                 length - 1 - ctx.before, 2)
        if ctx.needs_input_grad[1]:
            grad_weight = _correlate_along(x, grad, length, ctx.before, width)
        return grad_x, grad_weight, None


def _tall_conv(x: Tensor, weight: Tensor, before: int) -> Tensor:
    """Depthwise convolution with a tall kernel on the CPU."""
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return _TallConv.apply(x, weight, before)
    # A trace (counters, exporters) sees a convolution, not the function.
    return _conv_along(x, weight, before, 2)


def strip_conv(x: Tensor, weight: Tensor, spec: ShiftSpec, name: str,
               before: int | None = None) -> Tensor:
    """Depthwise convolution with a kernel of :func:`strip_weights`.

    Args:
        x (Tensor): ``(B, C, H, W)``.
        weight (Tensor): The kernel of output ``name``.
        spec (ShiftSpec): Sizes and tables.
        name (str): ``'h'``, ``'v'`` or ``'i'``.
        before (int, optional): The first place of a strip sits at
            ``-before``; at ``-(M // 2)`` if None. Defaults to None.

    Returns:
        Tensor: ``(B, C, H, W)``.
    """
    before = spec.large_kernel // 2 if before is None else before
    if name == 'i':
        return F.conv2d(x, weight, padding=spec.small_kernel // 2,
                        groups=x.shape[1])
    # What is exported is not for this CPU, and must not depend on a layout.
    if x.device.type != 'cpu' or _exporting() or \
            not torch.is_grad_enabled() and \
            x.is_contiguous(memory_format=torch.channels_last):
        return _conv_along(x, weight, before, 2 if name == 'v' else 3)
    if name == 'v':
        return _tall_conv(x, weight, before)
    # With rows that are contiguous oneDNN is many times faster with tall
    # kernels than with wide ones, which pays for the transposes.
    return _tall_conv(
        x.transpose(2, 3).contiguous(), weight.transpose(2, 3),
        before).transpose(2, 3)


def strip_pair_conv(x: Tensor, strip_h: Tensor, strip_v: Tensor,
                    bias: Tensor, spec: ShiftSpec) -> Tensor:
    """The deployed layer: both strips and a bias.

    Args:
        x (Tensor): ``(B, C, H, W)``.
        strip_h (Tensor): ``(C, 1, N, L)``, column 0 at ``-(M // 2)``.
        strip_v (Tensor): ``(C, 1, L, N)``, likewise.
        bias (Tensor): ``(C,)``.
        spec (ShiftSpec): Sizes.

    Returns:
        Tensor: ``(B, C, H, W)``.
    """
    before = spec.large_kernel // 2
    if _exporting():  # a bias to be broadcast would ask for strides
        return _conv_along(x, strip_v, before, 2, bias) + \
            _conv_along(x, strip_h, before, 3)
    if x.device.type == 'cpu' and not torch.is_grad_enabled():
        # In this layout wide strips run as they are, and the second is added
        # in place. With AVX2 both are faster over rows by themselves, but
        # not within a network, as measured: that takes four more tensors.
        x = x.contiguous(memory_format=torch.channels_last)
        out = _conv_along(x, strip_v, before, 2, bias)
        return _add_conv_along(out, x, strip_h, before, 3)
    out = strip_conv(x, strip_v, spec, 'v') + bias.view(-1, 1, 1)
    return out + strip_conv(x, strip_h, spec, 'h')
