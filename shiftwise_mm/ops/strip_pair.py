"""The deployed layer: two strips and a bias, by the fastest of its forms."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from shiftwise_mm.kernels import channel_launch, fused_launch
from shiftwise_mm.kernels.capability import favours_kernels
from shiftwise_mm.kernels.channel_launch import Strips
from shiftwise_mm.kernels.fused_launch import Taps

from . import autotune
from .excitation import Excitation, excite
from .fused import fused_reason
from .masks import has_values, is_plain_inference
from .prepared import input_case, may_repeat
from .same_bits import same_bits
from .spec import ShiftSpec
from .strips import strip_pair_conv

__all__ = ['StripPair', 'PreparedStrips']


class _Weights(NamedTuple):
    """What a deployed layer is made of."""
    strip_h: Tensor
    strip_v: Tensor
    bias: Tensor
    spec: ShiftSpec


@dataclass(frozen=True)
class _Contents:
    """What the strips hold, and how the kernels read it.

    Attributes:
        versions (tuple): Of the strips when they were looked at.
        strips (tuple[Tensor, Tensor]): Copies of them, ``h`` and ``v``.
        density (float): Taps that cover what is not zero, as a share of all.
        taps (Taps): Lists of these taps.
        kernels (Tensor): Their small kernels, flipped.
        centre (Tensor, optional): ``(C,)``, if there is nothing else.
        forms (dict): What runs, by shape and dtype.
    """

    versions: tuple
    strips: tuple[Tensor, Tensor]
    density: float
    taps: Taps
    kernels: Tensor
    centre: Tensor | None
    forms: dict = field(default_factory=dict)


class PreparedStrips:
    """A launch of form ``'channels'``, and what it was made for.

    Args:
        launch (channel_launch.Deployed): Reads ``weights`` as they lie.
        left (bool): Whether it leaves an excitation to others.
        weights (tuple[Tensor, ...]): These, of an excitation too.
        contents (_Contents): For which the form was chosen.
    """

    def __init__(self, launch: channel_launch.Deployed, left: bool,
                 weights: tuple[Tensor, ...], contents: _Contents) -> None:
        self.launch = launch
        self.left = left
        self.excites = len(weights) > 3 and not left
        self.weights = [(w, w.data_ptr()) for w in weights]
        self.versions = contents.versions

    def fits(self, weights: tuple[Tensor, ...]) -> bool:
        """Whether these are still where they were, and :meth:`holds`."""
        if len(weights) != len(self.weights):
            return False
        # The launch holds what lay there, so that it is the same memory.
        for weight, (known, address) in zip(weights, self.weights,
                                            strict=True):
            if weight is not known or weight.data_ptr() != address:
                return False
        return self.holds()

    def holds(self) -> bool:
        """Whether the launch reads the weights, which are where they were.

        Their values may differ, but strips that have changed are looked at
        again.
        """
        (strip_h, _), (strip_v, _) = self.weights[:2]
        return (self.versions == (_version(strip_h), _version(strip_v))
                and all([w.is_contiguous() for w, _ in self.weights]))

    def run(self, x: Tensor, excitation: Excitation | None) -> Tensor:
        """The layer, for an input of the launch's shape."""
        out = self.launch(x.float()).to(x.dtype)
        return excite(out, excitation) if self.left else out


class StripPair:
    r"""Computes :math:`K_V * x + K_H * x + b` in inference on a CPU.

    Forms:

    * ``'strip'``: :func:`~.strips.strip_pair_conv`, two convolutions, on any
      device, with gradients, in every trace and export.
    * ``'channels'``: whole strips in ``channels_last`` by
      :mod:`shiftwise_mm.kernels.channel_strips`; for ``N`` of 3 and 5. Squeeze
      and excitation that follow it does in the same launch, which is kept for
      the next input of this shape.
    * ``'fused'``: where strips are partly zero, as masks over small kernels
      leave them, the walk of :mod:`shiftwise_mm.kernels.fused` over the
      ``N x N`` kernels that cover what is not zero, both directions added up
      in one output. They are found in the strips themselves: no more has to
      be stored, and a file of a deployed layer is as before.
    * Strips with nothing but their centre scale ``x``.

    Which one runs is measured at the first call of a shape (see
    :func:`~.autotune.set_autotune`), or else follows a rule: the walk where so
    few taps are left that it is faster, else ``'channels'`` on most x86 CPUs
    (``favours_kernels``), and ``'strip'``. Strips are looked
    at once; before a form runs that reads what was found then, they are
    compared with those that were looked at, so that a change in any way is
    seen.

    Args:
        spec (ShiftSpec): Sizes ``M`` and ``N``.
    """

    def __init__(self, spec: ShiftSpec) -> None:
        self.spec = spec
        self._contents: _Contents | None = None
        self._prepared: dict[tuple, PreparedStrips] = {}

    def __getstate__(self) -> dict:
        """Copies and files have no launches: those belong to one runtime."""
        return {**self.__dict__, '_prepared': {}}

    def __call__(self, x: Tensor, strip_h: Tensor, strip_v: Tensor,
                 bias: Tensor, excitation: Excitation | None = None) -> Tensor:
        """The deployed layer.

        Args:
            x (Tensor): ``(B, C, H, W)``.
            strip_h (Tensor): ``(C, 1, N, L)``, column 0 at ``-(M // 2)``.
            strip_v (Tensor): ``(C, 1, L, N)``, likewise.
            bias (Tensor): ``(C,)``.
            excitation (Excitation, optional): Squeeze and excitation that
                follows. Defaults to None.

        Returns:
            Tensor: ``(B, C, H, W)``.
        """
        weights = _Weights(strip_h, strip_v, bias, self.spec)
        if not is_plain_inference(strip_h, x):
            # Which counters can see.
            return _excited(_by_strips(x, weights), excitation)
        case = input_case(x)
        tensors = strip_h, strip_v, bias, *(excitation or ())
        prepared = self._prepared.get(case)
        if prepared is not None and not prepared.fits(tensors):
            prepared = None
        if prepared is not None and may_repeat():
            return prepared.run(x, excitation)
        contents = self._look(strip_h, strip_v, exactly=False)
        form = self._form(x, weights, contents)
        if form not in _READ_STRIPS:
            looked = self._look(strip_h, strip_v, exactly=True)
            if looked is not contents:
                contents = looked
                form = self._form(x, weights, contents)
        if form != 'channels':
            return _excited(_RUNS[form](x, weights, contents), excitation)
        if prepared is None:
            taken = excitation if _fits(excitation, x) else None
            launch = channel_launch.Deployed(x.shape, _strips(weights), bias,
                                             taken)
            prepared = PreparedStrips(launch, taken is not excitation, tensors,
                                 contents)
            if all(t.dtype == torch.float32 and t.is_contiguous()
                   for t in tensors):  # it reads no copies
                if len(self._prepared) == 100:
                    self._prepared.clear()
                self._prepared[case] = prepared
        return prepared.run(x, excitation)

    def prepared(self, x: Tensor) -> PreparedStrips | None:
        """The launch that is kept for such an input, if it does everything
        and an excitation, else None.
        """
        prepared = self._prepared.get(input_case(x))
        return prepared if prepared is not None and prepared.excites else None

    def _form(self, x: Tensor, weights: _Weights, contents: _Contents) -> str:
        """What to run, a key of :data:`_RUNS`."""
        if contents.centre is not None:
            return 'centre'
        if not may_repeat():
            return self._choose(x, weights, contents)
        case = x.shape, x.dtype
        form = contents.forms.get(case)
        if form is None:
            if len(contents.forms) == 1000:
                contents.forms.clear()
            form = self._choose(x, weights, contents)
            contents.forms[case] = form
        return form

    def _choose(self, x: Tensor, weights: _Weights,
                contents: _Contents) -> str:
        """The fastest form for ``x``."""
        names = ['strip']
        if fused_reason(x, self.spec) is None:
            names.append('fused')
            if channel_launch.reason(x, self.spec.small_kernel,
                                     self.spec.strip_length) is None:
                names.append('channels')
        if autotune.is_on():
            runs = {name: partial(_measured, _RUNS[name], weights, contents)
                    for name in names}
            form = autotune.choice(runs, x, contents.strips[0], self.spec,
                                   ('deployed', ), False, True,
                                   contents.density)
            if form is not None:
                return form
        # Not measured on Zen 5, whose convolutions are twice as fast.
        rest = ('channels' if 'channels' in names and favours_kernels()
                else 'strip')
        return 'fused' if 'fused' in names and _walk_is_worth(
            x, self.spec, contents.density, rest) else rest

    def _look(self, strip_h: Tensor, strip_v: Tensor,
              exactly: bool) -> _Contents:
        """What the strips hold, looked at again if they have changed."""
        strips, known = (strip_h, strip_v), self._contents
        versions = _version(strip_h), _version(strip_v)
        if known is None or known.versions != versions or exactly and not all(
                same_bits(t, old)
                for t, old in zip(strips, known.strips, strict=True)):
            with torch.inference_mode(False):
                known = _look(*(t.detach().clone() for t in strips),
                              self.spec, versions)
            self._contents = known
        return known


def _version(tensor: Tensor) -> int | None:
    """How often it was changed in place, as far as torch tells."""
    return None if tensor.is_inference() else tensor._version


def _by_strips(x: Tensor, weights: _Weights,
               contents: _Contents | None = None) -> Tensor:
    return strip_pair_conv(x, *weights)


def _by_walking(x: Tensor, weights: _Weights, contents: _Contents) -> Tensor:
    """The walk, in the layout that the strips give."""
    given = x.detach().float().contiguous()
    # As a gradient both directions add up in one tensor.
    out, _ = fused_launch.backward([given, given], given, contents.kernels,
                                   contents.taps, 'vh', True, False)
    out = out.add_(weights.bias.view(-1, 1, 1)).to(x.dtype)
    return out.contiguous(memory_format=torch.channels_last)


def _by_channels(x: Tensor, weights: _Weights,
                 contents: _Contents) -> Tensor:
    launch = channel_launch.Deployed(x.shape, _strips(weights), weights.bias)
    return launch(x.float()).to(x.dtype)


def _strips(weights: _Weights) -> Strips:
    """As the kernels read them."""
    return Strips.of(weights.strip_h, weights.strip_v,
                     weights.spec.large_kernel // 2)


def _fits(excitation: Excitation | None, x: Tensor) -> bool:
    """Whether the kernel of ``'channels'`` does it as well."""
    return excitation is not None and has_values(*excitation) and \
        channel_launch.excitation_reason(x.shape[1],
                                         len(excitation.down)) is None


def _excited(out: Tensor, excitation: Excitation | None) -> Tensor:
    return out if excitation is None else excite(out, excitation)


def _by_scaling(x: Tensor, weights: _Weights, contents: _Contents) -> Tensor:
    return torch.addcmul(weights.bias.view(-1, 1, 1), x,
                         contents.centre.view(-1, 1, 1))


_READ_STRIPS = 'strip', 'channels'  # right whatever has changed
_RUNS = {'strip': _by_strips, 'fused': _by_walking, 'channels': _by_channels,
         'centre': _by_scaling}


def _measured(run: Callable, weights: _Weights, contents: _Contents,
              x: Tensor, *_) -> Tensor:
    """``run`` as :func:`~.autotune.choice` calls it."""
    return run(x, weights, contents)


def _walk_is_worth(x: Tensor, spec: ShiftSpec, density: float,
                   other: str) -> bool:
    """Whether the walk is faster than the form ``other``, as measured on
    CPUs, against ``'channels'`` on one with AVX2.

    On Zen 5, where strips are twice as fast, 3-wide ones that are nearly
    dense are left to :func:`~.autotune.set_autotune`, as ``'channels'`` is.
    """
    work = min(x.shape[2:]) * spec.small_kernel
    if other == 'channels':
        return x.numel() >= 150_000 and density <= .45 - 28 / max(work, 1)
    least = 84
    if not favours_kernels():
        if density > .75 and spec.small_kernel == 3:
            return False
        least = 140
    return x.numel() >= 150_000 and work >= least


def _look(strip_h: Tensor, strip_v: Tensor, spec: ShiftSpec,
          versions: tuple) -> _Contents:
    """Covers what is not zero in both strips with small kernels."""
    n, k = spec.small_kernel, spec.num_taps
    lists = [_cover(strip.flatten(1, 2), n)
             for strip in (strip_v, strip_h.transpose(2, 3))]
    channels = len(strip_h)
    counts = torch.cat([lists[0][0].bincount(minlength=channels),
                        lists[0][0].new_zeros(channels),
                        lists[1][0].bincount(minlength=channels)])
    start = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    number = torch.arange(int(start[-1]), device='cpu')
    offset = torch.cat([at for _, at, _ in lists]) - spec.large_kernel // 2
    tall, wide = (kernels for *_, kernels in lists)
    # The walk of gradients flips them back.
    kernels = torch.cat([tall, wide.transpose(1, 2)]).flip(1, 2)
    least = channels * k  # its scratch is made for so many
    kernels = F.pad(kernels, (0, 0, 0, 0, 0, max(least - len(kernels), 0)))
    taps = Taps.of(number[:, None], number[:0, None], offset, number, offset,
                   start)
    return _Contents(versions, (strip_h, strip_v),
                     len(number) / (2 * channels * k), taps,
                     kernels.unsqueeze(1).float().contiguous(),
                     _only_centre(strip_h, strip_v, spec))


def _cover(strip: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """The fewest runs of ``n`` rows that hold all that is not zero.

    Args:
        strip (Tensor): ``(C, L, n)``, long axis second.
        n (int): ``N``.

    Returns:
        tuple[Tensor, Tensor, Tensor]: Channel and first row of each run, by
        channel and falling row, and the rows, ``(runs, n, n)``.
    """
    strip = F.pad(strip, (0, 0, 0, n))
    left = (strip != 0).any(2)
    row = torch.arange(left.shape[1], device='cpu')
    starts = []
    while left.any():  # at most k times
        first = torch.where(left.any(1), left.int().argmax(1), -n)
        starts.append(first)
        left = left & (row >= first[:, None] + n)
    if not starts:
        return row[:0], row[:0], strip[:0, :n]
    starts = torch.stack(starts[::-1], 1)
    channel, place = (starts >= 0).nonzero().unbind(1)
    first = starts[channel, place]
    rows = first[:, None] + row[:n]
    return channel, first, strip[channel[:, None], rows]


def _only_centre(strip_h: Tensor, strip_v: Tensor,
                 spec: ShiftSpec) -> Tensor | None:
    """The centre of each channel, if the strips hold nothing else."""
    if strip_v.any():
        return None
    at = spec.small_kernel // 2, spec.large_kernel // 2
    rest = strip_h.clone()
    rest[:, 0, at[0], at[1]] = 0
    return None if rest.any() else strip_h[:, 0, at[0], at[1]].clone()
