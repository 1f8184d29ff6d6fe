"""What sparse kernels cost: by the paper's equations, and counted."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import groupby

from .tap_sets import TapSet

__all__ = ['Costs', 'multiply_adds', 'parameters']


@dataclass(frozen=True)
class Costs:
    """Parameters, or multiply-adds of one image, of large kernels alone.

    Paths count as the one convolution that they add up to. Ghost channels
    cost nothing.

    Attributes:
        slak (int): Of SLaK's kernels of that size, by equation.
        shiftwise (int): Of shared small kernels, by equation.
        predicted (float): The equation of the kernels in the file, times the
            share of taps that any path keeps.
        dense (int): Counted, as if all were kept.
        kept (int): Counted.
        strips, kept_strips (int): Multiply-adds of the same function as
            strips: every place of both directions, or those where a kept tap
            lies, and the identity output. 0 of parameters.
    """

    slak: int = 0
    shiftwise: int = 0
    predicted: float = 0.
    dense: int = 0
    kept: int = 0
    strips: int = 0
    kept_strips: int = 0

    def __add__(self, other: Costs) -> Costs:
        return Costs(*(getattr(self, f.name) + getattr(other, f.name)
                       for f in fields(self)))

    @property
    def saved(self) -> float:
        """Share of the dense ones that sparsity saves."""
        return 1 - self.kept / self.dense


def parameters(tap_sets: Iterable[TapSet]) -> Costs:
    r"""Weights.

    .. math::
        P_{SLaK} = 2 M N C, \quad P_{shiftwise} = k N^2 C

    The counted ones are those of the file; kept are those in kept taps, of
    masks over single weights those alone.
    """
    total = Costs()
    for layer in _layers(tap_sets):
        first = layer[0]
        n, c = first.small_kernel, first.channels
        slak = 2 * first.large_kernel * n * c
        shiftwise = first.taps * n * n * c
        total += Costs(
            slak, shiftwise, _predicted(layer, slak, shiftwise),
            sum(s.weights for s in layer), sum(s.kept_weights for s in layer))
    return total


def multiply_adds(tap_sets: Iterable[TapSet],
                  size: tuple[int, int]) -> Costs:
    r"""Multiply-adds at one image.

    .. math::
        C_{SLaK} = (2 M + N) N H W C, \quad C_{shiftwise} = k N^2 H W C

    Counted are the convolutions with the kernels of the file: small ones with
    the padding ``N - 1`` of the published composition, which the equations
    leave out, SLaK's small square kernel included. A tap costs all of its
    weights if any is kept.

    Args:
        tap_sets (Iterable[TapSet]): Of layers at one resolution.
        size (tuple[int, int]): Its ``H`` and ``W``.
    """
    height, width = size
    plane = height * width
    total = Costs()
    for layer in _layers(tap_sets):
        first = layer[0]
        n, c = first.small_kernel, first.channels
        slak = (2 * first.large_kernel + n) * n * plane * c
        shiftwise = first.taps * n * n * plane * c
        small = n * n * plane * c
        # SLaK's square kernel, which is never masked.
        beside = 0 if first.identity_tap is not None else small
        outputs = plane if first.is_long else \
            (height + n - 1) * (width + n - 1)
        total += Costs(
            slak, shiftwise, _predicted(layer, slak, shiftwise),
            sum(outputs * c * int(s.tap_sizes().sum()) for s in layer)
            + beside,
            sum(outputs * int((s.union * s.tap_sizes()).sum())
                for s in layer) + beside,
            *_strips(layer, plane, small))
    return total


def _strips(layer: list[TapSet], plane: int, small: int) -> tuple[int, int]:
    strips = kept = 0
    for tap_set in layer:
        for direction in tap_set.directions:
            # All taps are alike, or lie in their order.
            sizes = tap_set.tap_sizes()
            strips += plane * tap_set.channels * int(sizes.sum())
            kept += plane * int((tap_set.placed(direction) * sizes).sum())
    identity = layer[0].identity_tap
    if identity is None:
        return strips + small, kept + small
    taken = layer[0].union.gather(1, identity.long().T).any(1)
    return strips + small, kept + small // len(taken) * int(taken.sum())


def _predicted(layer: list[TapSet], slak: int, shiftwise: int) -> float:
    kept = sum(int(s.union.sum()) for s in layer)
    share = kept / sum(s.union.numel() for s in layer)
    return share * (shiftwise if layer[0].directions == 'hv' else slak)


def _layers(tap_sets: Iterable[TapSet]) -> Iterable[list[TapSet]]:
    """The sets of each layer: of SLaK both directions."""
    ordered = sorted(tap_sets, key=lambda tap_set: tap_set.layer)
    for _, layer in groupby(ordered, key=lambda tap_set: tap_set.layer):
        yield list(layer)
