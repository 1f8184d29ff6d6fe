"""The shift tables of one shift-wise convolution, fixed for its life."""
from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor
from torch._guards import active_fake_mode
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils._pytree import tree_map

__all__ = ['ShiftSpec']


@contextmanager
def _untraced() -> Iterator[None]:
    """Keeps a trace from recording how its constants were made.

    It would do so in the first of two calls only, and fail its own check.
    """
    state = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)
    try:
        yield
    finally:
        torch._C._set_tracing_state(state)


def check_int(name: str, value, minimum: int) -> int:
    """Returns ``value`` as ``int``.

    Raises:
        TypeError: If it is not an integer (``bool`` is not one here).
        ValueError: If it is smaller than ``minimum``.
    """
    if isinstance(value, bool) or not hasattr(value, '__index__'):
        raise TypeError(f'{name} must be an integer, got {value!r}')
    value = int(value)
    if value < minimum:
        raise ValueError(f'{name} must be at least {minimum}, got {value}')
    return value


# The blocks of a stage have the same tables, and drawing is slow. Arrays, for
# a tensor may be a fake one, or of inference mode.
@lru_cache(maxsize=64)
def _published_tables(channels: int, taps: int, num_reps: int,
                      seed: int) -> tuple[np.ndarray, ...]:
    """``perm_h``, ``perm_v`` and ``identity_tap`` as published."""
    generator = torch.Generator('cpu')
    generator.manual_seed(seed)

    def permutations() -> Tensor:
        return torch.stack([
            torch.randperm(taps, generator=generator, device='cpu')
            for _ in range(num_reps * channels)
        ]).view(num_reps, channels, taps)

    perm_h = permutations()
    perm_v = permutations()
    identity_tap = torch.stack([
        torch.randint(0, taps, (channels, ), generator=generator,
                      device='cpu')
        for _ in range(num_reps)
    ])
    return perm_h.numpy(), perm_v.numpy(), identity_tap.numpy()


@dataclass(frozen=True, eq=False, repr=False)
class ShiftSpec:
    r"""What is fixed for one shift-wise convolution: sizes and shift tables.

    A large kernel of length ``M`` is cut into ``k = ceil(M / N)`` taps, each
    an ``N x N`` small kernel. The taps of a channel lie at the offsets

    .. math:: o_i = \lfloor M/2 \rfloor - iN - (N-1), \quad i = 0..k-1

    and a repetition ``r`` is a permutation: position ``i`` is taken by tap
    ``perm[r, c, i]``. Specs are immutable, compare by value and are hashable,
    so they key caches; making one reads and seeds no global generator.

    Args:
        channels (int): Channels ``C`` that take part.
        large_kernel (int): ``M``, at least ``small_kernel``.
        small_kernel (int): ``N``, odd.
        perm_h (Tensor): Integer ``(R, C, k)``, a permutation of ``0..k-1``
            in its last dimension, for the horizontal direction.
        perm_v (Tensor): The same for the vertical direction.
        identity_tap (Tensor, optional): Integer ``(R, C)``: the tap that the
            identity output adds in each repetition. None if the form has no
            identity output.

    Attributes:
        digest (str): The same for specs that are equal, another one for
            others.

    Raises:
        TypeError: If a size is not an integer, or a table not an integer
            tensor.
        ValueError: If a size or a table is out of its range; the message
            names the argument, its value and what is allowed.
    """

    channels: int
    large_kernel: int
    small_kernel: int
    perm_h: Tensor
    perm_v: Tensor
    identity_tap: Tensor | None = None
    digest: str = field(init=False)
    _cache: dict = field(init=False)

    def __post_init__(self) -> None:
        put = object.__setattr__  # frozen: the only place that writes
        put(self, 'channels', check_int('channels', self.channels, 1))
        put(self, 'small_kernel',
            check_int('small_kernel', self.small_kernel, 1))
        if self.small_kernel % 2 == 0:
            raise ValueError('small_kernel must be odd (so that it has a '
                             f'centre), got {self.small_kernel}')
        put(self, 'large_kernel',
            check_int('large_kernel', self.large_kernel, 1))
        if self.large_kernel < self.small_kernel:
            raise ValueError(
                f'large_kernel must be at least small_kernel='
                f'{self.small_kernel}, got {self.large_kernel}')
        put(self, 'perm_h', self._checked_perm('perm_h', self.perm_h))
        put(self, 'perm_v', self._checked_perm('perm_v', self.perm_v))
        if self.perm_h.shape != self.perm_v.shape:
            raise ValueError('perm_h and perm_v must have the same shape, got '
                             f'{tuple(self.perm_h.shape)} and '
                             f'{tuple(self.perm_v.shape)}')
        if self.identity_tap is not None:
            put(self, 'identity_tap', self._checked_identity())
        put(self, '_cache', {})
        put(self, 'digest', self._make_digest())

    def _checked_table(self, name: str, table: Tensor, shape: tuple) -> Tensor:
        if not isinstance(table, Tensor) or table.is_floating_point() \
                or table.is_complex() or table.dtype == torch.bool:
            kind = getattr(table, 'dtype', type(table).__name__)
            raise TypeError(f'{name} must be an integer tensor, got {kind}')
        if table.dim() != len(shape) or table.shape[1:] != shape[1:] \
                or not table.shape[0]:
            raise ValueError(f'{name} must have shape (num_reps, '
                             f'{", ".join(map(str, shape[1:]))}), got '
                             f'{tuple(table.shape)}')
        # A private copy: the caller's tensor may change later, this may not.
        return table.detach().to('cpu', torch.int64, copy=True).contiguous()

    def _checked_perm(self, name: str, perm: Tensor) -> Tensor:
        perm = self._checked_table(name, perm,
                                   (0, self.channels, self.num_taps))
        if not torch.equal(perm.sort(-1).values,
                           torch.arange(self.num_taps, device='cpu'
                                        ).expand_as(perm)):
            raise ValueError(f'{name} must hold a permutation of 0..'
                             f'{self.num_taps - 1} for each repetition and '
                             'channel')
        return perm

    def _checked_identity(self) -> Tensor:
        tap = self._checked_table('identity_tap', self.identity_tap,
                                  (0, self.channels))
        if tap.shape[0] != self.num_reps:
            raise ValueError(f'identity_tap must have {self.num_reps} rows, '
                             f'one a repetition, got {tap.shape[0]}')
        if tap.min() < 0 or tap.max() >= self.num_taps:
            raise ValueError('identity_tap must lie in 0..'
                             f'{self.num_taps - 1}, got values in '
                             f'{tap.min().item()}..{tap.max().item()}')
        return tap

    def _make_digest(self) -> str:
        parts = hashlib.sha256(repr((self.channels, self.large_kernel,
                                     self.small_kernel,
                                     self.num_reps)).encode())
        for table in (self.perm_h, self.perm_v, self.identity_tap):
            parts.update(b'-' if table is None else table.numpy().tobytes())
        return parts.hexdigest()

    @classmethod
    def from_seed(cls, *, channels: int, large_kernel: int, small_kernel: int,
                  num_reps: int = 1, seed: int = 123) -> ShiftSpec:
        """The published tables: random, but the same for every seed.

        A CPU generator of its own, seeded with ``seed``, draws ``perm_h``
        for every repetition and channel, then ``perm_v`` likewise, then
        ``identity_tap`` for every repetition, in this order (as the published
        code of arXiv 2401.12736 does with seed 123).

        Args:
            channels (int): Channels ``C`` that take part.
            large_kernel (int): ``M``.
            small_kernel (int): ``N``, odd.
            num_reps (int): Repetitions ``R``. Defaults to 1.
            seed (int): Seed of the local generator. Defaults to 123.

        Raises:
            TypeError: If an argument is not an integer.
            ValueError: If an argument is out of its range.
        """
        channels = check_int('channels', channels, 1)
        num_reps = check_int('num_reps', num_reps, 1)
        large_kernel = check_int('large_kernel', large_kernel, 1)
        small_kernel = check_int('small_kernel', small_kernel, 1)
        taps = math.ceil(large_kernel / small_kernel)
        tables = _published_tables(channels, taps, num_reps,
                                   check_int('seed', seed, 0))
        return cls(channels, large_kernel, small_kernel,
                   *map(torch.from_numpy, tables))

    @classmethod
    def tiled(cls, *, channels: int, large_kernel: int,
              small_kernel: int) -> ShiftSpec:
        """The identity permutation: tap ``i`` lies at offset ``o_i``.

        An ``M x N`` kernel cut into ``k`` tiles along its long side, the last
        one zero-padded at its end: the single-direction form of the seed
        paper. One repetition, no identity output.

        Raises:
            TypeError: If an argument is not an integer.
            ValueError: If an argument is out of its range.
        """
        channels = check_int('channels', channels, 1)
        large_kernel = check_int('large_kernel', large_kernel, 1)
        small_kernel = check_int('small_kernel', small_kernel, 1)
        taps = math.ceil(large_kernel / small_kernel)
        perm = torch.arange(taps, device='cpu').expand(1, channels, taps)
        return cls(channels, large_kernel, small_kernel, perm, perm)

    @property
    def num_taps(self) -> int:
        """``k = ceil(M / N)``."""
        return math.ceil(self.large_kernel / self.small_kernel)

    @property
    def num_reps(self) -> int:
        """``R``, the repetitions."""
        return self.perm_h.shape[0]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs that this spec has: of ``'h', 'v', 'i'``."""
        return ('h', 'v') if self.identity_tap is None else ('h', 'v', 'i')

    @property
    def strip_length(self) -> int:
        """``k * N``, the length of the equivalent strip kernel."""
        return self.num_taps * self.small_kernel

    def position_offsets(self) -> Tensor:
        """``o_i`` of each position: int64 ``(k,)``."""
        return (self.large_kernel // 2 - (self.small_kernel - 1) -
                self.small_kernel * torch.arange(self.num_taps, device='cpu'))

    def tap_offsets(self, direction: str) -> Tensor:
        """``p_r(c, j)``, the offset of each tap: int64 ``(R, C, k)``.

        Args:
            direction (str): ``'h'`` or ``'v'``.
        """
        perm = {'h': self.perm_h, 'v': self.perm_v}[direction]
        return torch.empty_like(perm).scatter_(
            -1, perm, self.position_offsets().expand_as(perm))

    def cached(self, key, make):
        """``make()``, kept under the hashable ``key`` as long as the spec.

        What is kept has values: where tensors are fake, it is given as one.
        """
        if torch.compiler.is_dynamo_compiling():
            return make()
        if key not in self._cache:
            # Else what a first call in inference mode leaves here could
            # never be trained through.
            with unset_fake_temporarily(), torch.inference_mode(False), \
                    _untraced():
                self._cache[key] = make()
        fake = active_fake_mode()
        # Exports hold the values themselves as constants.
        if fake is None or torch.compiler.is_exporting():
            return self._cache[key]
        # Else each size of a table would be a free one of its own.
        return tree_map(partial(fake.from_tensor, static_shapes=True),
                        self._cache[key])

    def __eq__(self, other) -> bool:
        if not isinstance(other, ShiftSpec):
            return NotImplemented
        return self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return (f'ShiftSpec(channels={self.channels}, '
                f'large_kernel={self.large_kernel}, '
                f'small_kernel={self.small_kernel}, '
                f'num_reps={self.num_reps}, '
                f'tables={self.digest[:8]})')

    def __deepcopy__(self, memo) -> ShiftSpec:
        return self  # immutable

    def __reduce__(self):
        return (type(self),
                (self.channels, self.large_kernel, self.small_kernel,
                 self.perm_h, self.perm_v, self.identity_tap))
