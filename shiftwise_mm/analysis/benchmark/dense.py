"""The dense depthwise ``M x N`` pair in plain torch, its ways of running."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

from shiftwise_mm.ops import ShiftSpec

__all__ = ['DENSE', 'dense_pair']

# Layout and padding of each, by the name of its row. 'transposed': the wide
# kernel runs as a tall one on the transposed tensor.
DENSE: dict[str, tuple[str, bool]] = {
    f'dense pair, {layout}, {"narrow" if narrow else "pad"}': (layout, narrow)
    for layout in ('contiguous', 'channels_last', 'transposed')
    for narrow in (True, False)
}


def _conv(x: Tensor, kernel: Tensor, before: int, dim: int,
          narrow: bool) -> Tensor:
    """Depthwise convolution that keeps the size, place 0 at ``-before``."""
    length = kernel.shape[dim]
    sides = [before, length - 1 - before]
    across = kernel.shape[5 - dim] // 2
    if narrow:  # one symmetric padding, then the part wanted
        padding = [across, across]
        padding[dim - 2] = max(sides)
        out = F.conv2d(x, kernel, padding=padding, groups=x.shape[1])
        return out.narrow(dim, max(sides) - before, x.shape[dim])
    pad = [across, across, *sides] if dim == 2 else [*sides, across, across]
    return F.conv2d(F.pad(x, pad), kernel, groups=x.shape[1])


def dense_pair(spec: ShiftSpec, outputs: Sequence[str], layout: str,
               narrow: bool) -> Callable[..., tuple[Tensor, ...]]:
    """A function from ``x`` and one kernel an output to the outputs.

    Args:
        spec (ShiftSpec): Sizes.
        outputs (Sequence[str]): The outputs wanted.
        layout (str): ``'contiguous'``, ``'channels_last'`` (that of the
            tensors given) or ``'transposed'``.
        narrow (bool): Pad within the convolution and cut the result, or pad
            before it.
    """
    before = spec.large_kernel // 2

    def one(x: Tensor, kernel: Tensor, name: str) -> Tensor:
        if name == 'i':
            return F.conv2d(x, kernel, padding=spec.small_kernel // 2,
                            groups=x.shape[1])
        if name == 'h' and layout == 'transposed':
            return _conv(
                x.transpose(2, 3).contiguous(),
                kernel.transpose(2, 3).contiguous(), before, 2,
                narrow).transpose(2, 3)
        return _conv(x, kernel, before, 3 if name == 'h' else 2, narrow)

    return lambda x, *kernels: tuple(
        one(x, kernel, name)
        for kernel, name in zip(kernels, outputs, strict=True))
