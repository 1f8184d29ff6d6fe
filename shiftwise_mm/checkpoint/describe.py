"""What a state dict tells about the backbone that it fits."""
from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch.nn as nn
from torch import Tensor

__all__ = ['Facts', 'describe', 'describe_model', 'fitting_kernels',
           'kernel_of_offsets']

_WEIGHT = re.compile(r'stages\.(\d+)\.(\d+)\.(.+)')


@dataclass(frozen=True)
class Facts:
    """Options of a backbone, None where they do not show.

    Args:
        family (str): Class of the backbone; None if it is none of ours.
        style (str): Of ShiftWiseNet.
        form (str): Of SLaK.
        deploy (bool): Whether it is the deployed form.
        in_channels (int): Channels of the input.
        embed_dims, depths (tuple[int]): Channels and blocks of each stage.
        small_kernel (int): ``N``.
        taps (tuple[int]): ``k`` of each stage.
        kernel_sizes (tuple): ``M`` of each stage; of UniRepLKNet a tuple with
            one of each block.
        convolved (tuple[int]): Channels of each stage that are no ghosts.
        ghost_ratio (float): Share of ghosts, as the options give it.
        num_paths, num_reps (int): Of ShiftWiseNet.
        layer_scale (bool): Whether there is one; None when deployed.
        num_classes (int): Of the classifier, if there is one.
    """

    family: str | None = None
    style: str | None = None
    form: str | None = None
    deploy: bool = False
    in_channels: int | None = None
    embed_dims: tuple[int | None, ...] = ()
    depths: tuple[int, ...] = ()
    small_kernel: int | None = None
    taps: tuple[int | None, ...] = ()
    kernel_sizes: tuple = ()
    convolved: tuple[int | None, ...] = ()
    ghost_ratio: float | None = None
    num_paths: int | None = None
    num_reps: int | None = None
    layer_scale: bool | None = None
    num_classes: int | None = None


def fitting_kernels(taps: int, small_kernel: int) -> tuple[int, ...]:
    """The odd ``M`` with ``ceil(M / N) == k``."""
    return tuple(m for m in range((taps - 1) * small_kernel + 1,
                                  taps * small_kernel + 1) if m % 2)


def kernel_of_offsets(table: Tensor | None, taps: int | None,
                      small_kernel: int | None) -> int | None:
    """``M`` from the offsets of taps, of which ``M//2 - (N-1)`` is largest.

    Args:
        table (Tensor, optional): A ``shift_h`` or ``shift_v``.
        taps (int, optional): ``k``.
        small_kernel (int, optional): ``N``.

    Returns:
        int | None: None if an argument is missing or no ``M`` fits.
    """
    if table is None or not table.numel() or not taps or not small_kernel:
        return None
    half = int(table.max()) + small_kernel - 1
    return next((m for m in (2 * half + 1, 2 * half)
                 if math.ceil(m / small_kernel) == taps), None)


def describe(state_dict: Mapping[str, Tensor],
             args: Mapping | None = None) -> Facts:
    """Reads a backbone's options from the names and shapes of its weights.

    Args:
        state_dict (Mapping): Native names to tensors.
        args (Mapping, optional): Options of the published training, which
            tell what shapes do not: the exact kernel sizes (``kernel_size``,
            the small one last) and the repetitions (``N_rep``).

    Returns:
        Facts: Of anything that is none of ours, ``Facts()``.
    """
    blocks = _blocks_of(state_dict)
    depths = tuple(1 + max((j for s, j in blocks if s == i), default=-1)
                   for i in range(1 + max((s for s, _ in blocks),
                                          default=-1)))
    parts = {part for block in blocks.values() for part in block}
    family = _family_of(parts)
    if family is None:
        return Facts()
    firsts = [next((blocks[key] for key in sorted(blocks) if key[0] == i), {})
              for i in range(len(depths))]
    unirep = _any(parts, 'pwconv1.1.')
    style = 'unirep' if unirep else \
        'slak' if 'pwconv1.weight' in parts else None
    widths = [b.get('pwconv1.1.weight', b.get('pwconv1.weight'))
              for b in firsts]
    deploy = _any(parts, 'large_kernel.strip_h.') if family in (
        'ShiftWiseNet', 'SLaK') else unirep and not _any(parts, 'norm.')
    facts = Facts(
        family=family,
        deploy=deploy,
        in_channels=_size(state_dict.get('downsample_layers.0.0.weight'), 1),
        embed_dims=tuple(_size(w, 1) for w in widths),
        depths=depths,
        layer_scale=None if deploy else 'gamma' in parts,
        num_classes=_size(state_dict.get('head.fc.weight'), 0))
    if family == 'ShiftWiseNet':
        facts = _describe_shiftwise(facts, firsts, style)
    elif family == 'SLaK':
        facts = _describe_slak(facts, firsts)
    elif family == 'UniRepLKNet':
        facts = replace(facts, kernel_sizes=_dilated_kernels(blocks, depths))
    return _with_args(facts, args or {})


def describe_model(module: nn.Module) -> Facts:
    """The same of a backbone as it is built, with exact kernel sizes."""
    facts = describe(module.state_dict())
    if facts.family not in ('ShiftWiseNet', 'SLaK'):
        return facts
    layers = [stage[0].large_kernel for stage in module.stages]
    return replace(
        facts,
        kernel_sizes=tuple(layer.spec.large_kernel for layer in layers),
        taps=tuple(layer.spec.num_taps for layer in layers),
        ghost_ratio=getattr(layers[0], 'ghost_ratio', None))


def _blocks_of(state_dict) -> dict[tuple[int, int], dict[str, Tensor]]:
    blocks = {}
    for name, value in state_dict.items():
        match = _WEIGHT.fullmatch(name)
        if match and isinstance(value, Tensor):
            i, j, part = match.groups()
            blocks.setdefault((int(i), int(j)), {})[part] = value
    return blocks


def _any(parts, start: str) -> bool:
    return any(part.startswith(start) for part in parts)


def _size(tensor: Tensor | None, dim: int) -> int | None:
    return None if tensor is None or tensor.dim() <= dim \
        else tensor.shape[dim]


def _family_of(parts) -> str | None:
    if _any(parts, 'dwconv.'):
        return 'UniRepLKNet' if _any(parts, 'pwconv1.1.') else 'ConvNeXt'
    if _any(parts, 'large_kernel.convs.') or \
            _any(parts, 'large_kernel.rep_index'):
        return 'ShiftWiseNet'
    if _any(parts, 'large_kernel.conv_i.') or \
            _any(parts, 'large_kernel.strip_h.'):
        return 'SLaK'
    return None


def _taps_of(weight: Tensor | None, channels: int | None) -> int | None:
    """``k`` of small kernels ``(C*k, 1, N, N)`` or a strip ``(C, 1, N, kN)``.
    """
    if weight is None or weight.dim() != 4 or not channels:
        return None
    height, width = sorted(weight.shape[2:])
    return weight.shape[0] // channels * math.ceil(width / height)


def _describe_shiftwise(facts: Facts, firsts: list,
                        style: str | None) -> Facts:
    taps, kernels, convolved, small, reps = [], [], [], None, None
    for block in firsts:
        part = {name.removeprefix('large_kernel.'): value
                for name, value in block.items()}
        weight = part.get('strip_h.weight', part.get('convs.0.weight'))
        small = small or _size(weight, 2)
        channels = next((_size(part.get(name), 0) for name in (
            'rep_index', 'norm_h.weight', 'strip_h.weight')
            if name in part), None)
        convolved.append(channels)
        taps.append(_taps_of(weight, _size(weight, 0)
                             if 'strip_h.weight' in part else channels))
        table = part.get('shift_h')
        reps = reps or _size(table, 0)
        kernels.append(kernel_of_offsets(table, taps[-1], small))
    paths = [name for name in firsts[0] if re.fullmatch(
        r'large_kernel\.convs\.\d+\.weight', name)]
    return replace(
        facts, style=style, small_kernel=small,
        taps=tuple(taps), kernel_sizes=tuple(kernels),
        convolved=tuple(convolved), num_paths=len(paths) or None,
        num_reps=reps)


def _describe_slak(facts: Facts, firsts: list) -> Facts:
    longs = [b.get('large_kernel.strip_h.weight',
                   b.get('large_kernel.conv_h.weight',
                         b.get('large_kernel.conv.weight'))) for b in firsts]
    smalls = [_size(weight, 2) for weight in longs]
    taps = tuple(_taps_of(weight, dim)
                 for weight, dim in zip(longs, facts.embed_dims, strict=True))
    lengths = [_size(weight, 3) for weight in longs]
    small = next(filter(None, smalls), None)
    if any('large_kernel.conv.weight' in block for block in firsts):
        form = 'shared_gated'
    elif facts.deploy:
        # Strips of small kernels are whole multiples of them.
        form = 'large' if any(length and small and length % small
                              for length in lengths) else 'shiftwise'
    else:
        form = 'large' if lengths != smalls else 'shiftwise'
    exact = form == 'large'
    return replace(
        facts, form=form, small_kernel=small, taps=taps,
        kernel_sizes=tuple(length if exact else None for length in lengths))


def _dilated_kernels(blocks: dict, depths: tuple) -> tuple:
    def size(i: int, j: int) -> int | None:
        block = blocks.get((i, j), {})
        return _size(block.get('dwconv.lk_origin.weight',
                               block.get('dwconv.weight')), 3)

    return tuple(tuple(size(i, j) for j in range(depth))
                 for i, depth in enumerate(depths))


def _with_args(facts: Facts, args: Mapping) -> Facts:
    """Adds what the options of the training tell and shapes do not."""
    if facts.family not in ('ShiftWiseNet', 'SLaK'):
        return facts
    sizes = args.get('kernel_size')
    if isinstance(sizes, (list, tuple)) and \
            len(sizes) == len(facts.depths) + 1 and \
            all(isinstance(size, int) and size > 0 for size in sizes):
        *sizes, small = sizes
        fitting = tuple(math.ceil(m / small) for m in sizes)
        if small == facts.small_kernel and fitting == facts.taps:
            facts = replace(facts, kernel_sizes=tuple(
                known or given for known, given in zip(
                    facts.kernel_sizes, sizes, strict=True)))
    if facts.family == 'ShiftWiseNet':
        reps, ratio = args.get('N_rep'), args.get('ghost_ratio')
        if facts.num_reps is None and isinstance(reps, int):
            facts = replace(facts, num_reps=reps)
        if isinstance(ratio, (int, float)):
            facts = replace(facts, ghost_ratio=float(ratio))
    return facts
