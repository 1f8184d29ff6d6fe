"""The small kernels in a checkpoint, and which of them are kept."""
from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shiftwise_mm.checkpoint.describe import kernel_of_offsets
from shiftwise_mm.models.layers.decomposed_conv2d import kernel_to_taps
from shiftwise_mm.ops import ShiftSpec
from shiftwise_mm.sparsity.targets import stage_of

__all__ = ['TapSet', 'find_tap_sets']

# The weights under a mask, and what a layer of that kind has beside them.
_KINDS = (
    (re.compile(r'(.+)\.convs\.0\.weight'), ('rep_index', 'norm_h.weight')),
    (re.compile(r'(.+)\.conv_(h|v)\.weight'), ('conv_i.weight', )),
    (re.compile(r'(.+)\.conv\.weight'), ('gate_h.weight', )),
)
_OURS = re.compile(r'stages\.\d+\.(\d+)\.large_kernel')


@dataclass(frozen=True, eq=False)
class TapSet:
    """The small kernels ("taps") that one mask is for.

    A long kernel (SLaK) counts as the tiles of
    :func:`~shiftwise_mm.models.layers.decomposed_conv2d.kernel_to_taps`; a
    tile is kept if any of its weights is.

    Args:
        layer (str): Name of the layer, without ``backbone.``.
        directions (str): Which outputs they go to: ``'hv'``, or ``'h'`` or
            ``'v'`` where each has kernels of its own.
        kept (Tensor): Bool ``(P, C, k)``.
        weights, kept_weights (int): Weights of a path, and those of them that
            any path keeps.
        masked (bool): Whether a mask in the file told, else zeros did.
        large_kernel, small_kernel (int): ``M`` and ``N``.
        is_long (bool): Whether the kernels are long ones.
        offsets (dict): Of each direction, where the taps go: integer
            ``(R, C, k)``, see :meth:`~shiftwise_mm.ops.ShiftSpec.tap_offsets`.
        identity_tap (Tensor, optional): Integer ``(R, C)``; None if another
            small kernel makes the identity output.
        has_tables (bool): Whether the offsets are those of the file.
    """

    layer: str
    directions: str
    kept: Tensor
    weights: int
    kept_weights: int
    masked: bool
    large_kernel: int
    small_kernel: int
    is_long: bool
    offsets: Mapping[str, Tensor]
    identity_tap: Tensor | None
    has_tables: bool

    @property
    def stage(self) -> str:
        """See :func:`~shiftwise_mm.sparsity.targets.stage_of`."""
        return stage_of(self.layer)

    @property
    def label(self) -> str:
        """Block and, where there are two sets in a block, direction."""
        ours = _OURS.fullmatch(self.layer)
        name = ours.group(1) if ours else self.layer
        return name if self.directions == 'hv' else f'{name} {self.directions}'

    @property
    def channels(self) -> int:
        """``C``, the channels that take part."""
        return self.kept.shape[1]

    @property
    def taps(self) -> int:
        """``k``."""
        return self.kept.shape[2]

    @property
    def union(self) -> Tensor:
        """What any path keeps, hence is computed: bool ``(C, k)``."""
        return self.kept.any(0)

    def tap_sizes(self) -> Tensor:
        """Weights of each tap, less where ``M`` cuts one off: ``(k,)``."""
        n = self.small_kernel
        length = self.large_kernel if self.is_long else self.taps * n
        return n * (length - n * torch.arange(self.taps)).clamp(max=n)

    def placed(self, direction: str) -> Tensor:
        """Whether a kept tap lies at a place, in any repetition.

        Args:
            direction (str): ``'h'`` or ``'v'``, of :attr:`directions`.

        Returns:
            Tensor: Bool ``(C, k)``, by the order of :meth:`centres`.
        """
        n = self.small_kernel
        first = self.large_kernel // 2 - (n - 1)
        index = (first - self.offsets[direction].long()) // n
        spread = self.union.expand_as(index)
        return torch.zeros_like(spread).scatter_(-1, index, spread).any(0)

    def centres(self) -> list[int]:
        """Where the centre of the kernel at each place lies, in pixels from
        the centre of the large kernel, ascending.
        """
        n = self.small_kernel
        first = -(self.large_kernel // 2) + n // 2
        return [first + i * n for i in range(self.taps)]


def find_tap_sets(state_dict: Mapping[str, Tensor],
                  kernel_sizes: Sequence[int] = (),
                  num_reps: int = 1) -> list[TapSet]:
    """The small kernels of all layers in a checkpoint.

    Args:
        state_dict (Mapping): Native names to tensors, without ``backbone.``.
        kernel_sizes (Sequence[int]): ``M`` of each stage, and
        num_reps (int): ``R``, of layers without tables in the file.

    Returns:
        list[TapSet]: In the order of the file; empty if there are none, as
        in deployed networks.

    Raises:
        ValueError: If a mask does not fit its weights, or the tables of a
            layer are neither in the file nor told by the options.
    """
    return [_tap_set(state_dict, *found, kernel_sizes, num_reps)
            for name in state_dict for found in _layers_at(state_dict, name)]


def _layers_at(state_dict: Mapping[str, Tensor],
               name: str) -> Iterator[tuple[str, str]]:
    """The layer whose kernels have that name, and their directions."""
    for pattern, beside in _KINDS:
        match = pattern.fullmatch(name)
        if match and any(f'{match.group(1)}.{b}' in state_dict
                         for b in beside):
            layer, *direction = match.groups()
            yield layer, direction[0] if direction else 'hv'


def _tap_set(state_dict: Mapping[str, Tensor], layer: str, directions: str,
             kernel_sizes: Sequence[int], num_reps: int) -> TapSet:
    part = {name.removeprefix(f'{layer}.'): value
            for name, value in state_dict.items()
            if name.startswith(f'{layer}.')}
    flags, masked = _flags(part, directions, layer)
    channels = len(part.get('rep_index', part.get(
        'norm_h.weight', part.get('conv_i.weight'))))
    *_, height, width = flags.shape
    n, length = sorted((height, width))
    is_long = n != length
    tiles = flags
    if is_long:
        tiles = torch.stack([
            kernel_to_taps(path[:, None].byte(), directions, n)[:, 0]
            for path in flags])
    kept = tiles.flatten(2).any(2).unflatten(1, (channels, -1))
    has_tables = {'shift_h', 'shift_v', 'shift_i'} <= set(part)
    large = length if is_long else kernel_of_offsets(
        part.get('shift_h'), kept.shape[2], n) or _given_kernel(
            layer, kernel_sizes, kept.shape[2], n)
    identity = None
    if has_tables:
        offsets = {d: part[f'shift_{d}'] for d in directions}
        identity = part['shift_i']
    else:
        sizes = dict(channels=channels, large_kernel=large, small_kernel=n)
        spec = ShiftSpec.tiled(**sizes) if 'conv_i.weight' in part else \
            ShiftSpec.from_seed(**sizes, num_reps=num_reps)
        offsets = {d: spec.tap_offsets(d) for d in directions}
        identity = spec.identity_tap
    return TapSet(
        layer, directions, kept, flags[0].numel(), int(flags.any(0).sum()),
        masked, large, n, is_long, offsets, identity, has_tables)


def _flags(part: Mapping[str, Tensor], directions: str,
           layer: str) -> tuple[Tensor, bool]:
    """Which weights are kept, bool ``(P, n, h, w)``; whether by a mask."""
    names = [f'conv_{directions}.weight'] if directions != 'hv' else \
        ['conv.weight'] if 'conv.weight' in part else \
        [f'convs.{p}.weight' for p in range(len(part))
         if f'convs.{p}.weight' in part]
    weights = torch.stack([part[name] for name in names])[:, :, 0]
    name = 'mask' if directions == 'hv' else f'mask_{directions}'
    if name not in part:
        return weights != 0, False
    mask = part[name].bool()
    if mask.shape not in (weights.shape, weights.shape[:2]):
        raise ValueError(f'{layer}.{name} of {tuple(mask.shape)} fits no '
                         f'weights of {tuple(weights.shape)}')
    if mask.dim() == 2:
        mask = mask[:, :, None, None]
    return mask.expand(weights.shape), True


def _given_kernel(layer: str, kernel_sizes: Sequence[int], taps: int,
                  small_kernel: int) -> int:
    stage = stage_of(layer)
    number = int(re.sub(r'\D', '', stage) or 0)
    if stage.startswith('stage') and number < len(kernel_sizes) and \
            math.ceil(kernel_sizes[number] / small_kernel) == taps:
        return kernel_sizes[number]
    raise ValueError(f'{layer} has no tables in the file, and no kernel size '
                     'of it is known')
