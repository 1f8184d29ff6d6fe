"""One problem that all contestants solve, and its answer."""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from shiftwise_mm.ops import ShiftSpec

__all__ = ['Case']


@dataclass(frozen=True)
class Case:
    r"""Shift-wise convolution of random tensors, and its exact results.

    The answer is computed in float64 by Fourier transforms of ``x`` and of
    the strips that the taps add up to: by none of the ways that compete.

    Args:
        spec (ShiftSpec): Sizes and tables.
        shape (tuple[int]): ``(B, C, H, W)``.
        device (torch.device): Where it runs.
        outputs (tuple[str]): The outputs wanted. Defaults to all.
        density (float): Share of the taps that are kept, the others zero.
            Defaults to 1.
        seed (int): Of the tensors. Defaults to 0.
    """

    spec: ShiftSpec
    shape: tuple[int, int, int, int]
    device: torch.device
    outputs: tuple[str, ...] = ()
    density: float = 1.
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise ValueError('density must be in (0, 1], got '
                             f'{self.density}')
        object.__setattr__(self, 'outputs',
                           tuple(self.outputs) or self.spec.outputs)

    def _random(self, offset: int, *shape: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + offset)
        return torch.randn(shape, generator=generator).to(self.device)

    @cached_property
    def x(self) -> Tensor:
        """Input ``(B, C, H, W)``, float32, contiguous."""
        return self._random(0, *self.shape).requires_grad_()

    @cached_property
    def x_channels_last(self) -> Tensor:
        """The same numbers in the other layout."""
        return self.x.detach().clone(
            memory_format=torch.channels_last).requires_grad_()

    @cached_property
    def kept(self) -> Tensor:
        """Which taps are not masked: bool ``(C*k,)``."""
        count = self.spec.channels * self.spec.num_taps
        number = max(round(self.density * count), 1)
        order = torch.randperm(
            count, generator=torch.Generator().manual_seed(self.seed))
        kept = torch.zeros(count, dtype=torch.bool)
        kept[order[:number]] = True
        return kept.to(self.device)

    @property
    def mask(self) -> Tensor | None:
        """:attr:`kept`, or None where that is all."""
        return self.kept if self.density < 1 else None

    @cached_property
    def weight(self) -> Tensor:
        """Small kernels ``(C*k, 1, N, N)``, zero where masked."""
        n = self.spec.small_kernel
        weight = self._random(1, len(self.kept), 1, n, n)
        return (weight * self.kept.view(-1, 1, 1, 1)).requires_grad_()

    @cached_property
    def grads(self) -> tuple[Tensor, ...]:
        """Gradients of the outputs."""
        return tuple(self._random(2 + i, *self.shape)
                     for i in range(len(self.outputs)))

    def strip(self, weight: Tensor, name: str) -> Tensor:
        """The kernel that the taps of one output add up to, by its tables.

        Returns:
            Tensor: ``(C, 1, N, kN)`` for ``'h'``, ``(C, 1, kN, N)`` for
            ``'v'``, ``(C, 1, N, N)`` for ``'i'``.
        """
        spec, n = self.spec, self.spec.small_kernel
        taps = weight.view(spec.channels, spec.num_taps, n, n)
        channel = torch.arange(spec.channels, device=weight.device)
        if name == 'i':
            tables = [spec.identity_tap]
        else:
            tables = (spec.perm_h if name == 'h' else spec.perm_v).unbind(-1)
        parts = [
            sum(taps[channel, tap] for tap in table.to(weight.device))
            for table in tables
        ]
        return torch.cat(parts, 2 if name == 'h' else 1).unsqueeze(1)

    @cached_property
    def answer(self) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
        """The outputs, and the gradients of ``x`` and ``weight``."""
        weight = self.weight.detach().double().requires_grad_()
        outs, grad_x, grad_weight = [], [], 0
        images = max((1 << 22) // self.x[0].numel(), 1)
        pieces = [t.detach().split(images) for t in (self.x, *self.grads)]
        for x, *grads in zip(*pieces, strict=True):
            x = x.double().requires_grad_()
            piece = [self._correlate(x, self.strip(weight, name), name)
                     for name in self.outputs]
            for_x, for_weight = torch.autograd.grad(
                piece, (x, weight), [g.double() for g in grads])
            outs.append([out.detach().float() for out in piece])
            grad_x.append(for_x.float())
            grad_weight = grad_weight + for_weight
        return (tuple(map(torch.cat, zip(*outs, strict=True))),
                torch.cat(grad_x), grad_weight.float())

    def _correlate(self, x: Tensor, kernel: Tensor, name: str) -> Tensor:
        """Depthwise convolution by Fourier transforms."""
        height, width = x.shape[2:]
        before, e = self.spec.large_kernel // 2, self.spec.small_kernel // 2
        first = {'h': (e, before), 'v': (before, e), 'i': (e, e)}[name]
        size = [s + k - 1 for s, k in
                zip((height, width), kernel.shape[2:], strict=True)]
        product = (torch.fft.rfft2(x, s=size) *
                   torch.fft.rfft2(kernel[:, 0], s=size).conj())
        out = torch.fft.irfft2(product, s=size)
        return out.roll(first, (2, 3))[..., :height, :width]
