"""The config of a backbone that takes given weights."""
from __future__ import annotations

from collections.abc import Sequence

from shiftwise_mm.checkpoint.describe import Facts, fitting_kernels
from shiftwise_mm.models.layers.ghost import split_channels
from shiftwise_mm.registry import MODELS

__all__ = ['fitting_ghost_ratio', 'format_config', 'suggest_config']

# What published networks use, by stage, the likeliest first.
_KERNELS = ((51, ), (49, ), (47, 45), (13, ))
_NUM_REPS = 4
_GHOST_RATIO = 0.23
_WIDTH_FACTORS = (1., 1.3)


def suggest_config(facts: Facts) -> tuple[dict, dict[str, str]]:
    """Options of a backbone to build, from what its weights tell.

    Args:
        facts (Facts): Of the weights.

    Returns:
        tuple[dict, dict]: The config, and for each of its options that the
        weights leave open a remark on how it was chosen.

    Raises:
        ValueError: If the facts are of no backbone of ours, or incomplete.
    """
    if facts.family is None:
        raise ValueError('the weights are none of ours, by their names')
    if None in facts.embed_dims or None in facts.taps or 0 in facts.depths \
            or None in facts.convolved \
            or facts.family == 'ShiftWiseNet' and facts.style is None:
        raise ValueError(f'the weights are those of an incomplete '
                         f'{facts.family}')
    arch, width = _arch(facts)
    config = dict(type=f'shiftwise_mm.{facts.family}', arch=arch)
    remarks = {}
    if facts.family in ('SLaK', 'ShiftWiseNet'):
        config['kernel_sizes'], remark = _kernels(facts)
        if remark:
            remarks['kernel_sizes'] = remark
        config['small_kernel'] = facts.small_kernel
        if facts.family == 'SLaK' or width != 1:
            config['width_factor'] = width
    if facts.family == 'SLaK':
        config['form'] = facts.form
    if facts.family == 'ShiftWiseNet':
        config['style'] = facts.style
        config['ghost_ratio'] = fitting_ghost_ratio(facts)
        if facts.num_paths:
            config['num_paths'] = facts.num_paths
        config['num_reps'] = facts.num_reps or _NUM_REPS
        if facts.num_reps is None:
            remarks['num_reps'] = 'not in the file; the published value'
    if facts.in_channels not in (None, 3):
        config['in_channels'] = facts.in_channels
    if facts.layer_scale is False:
        config['layer_scale_init_value'] = None
    if facts.deploy:
        config['deploy'] = True
    return config, remarks


def _arch(facts: Facts) -> tuple[str | dict, float]:
    """Name of the architecture, else its dict; and the width factor."""
    settings = MODELS.get(facts.family).arch_settings
    settings = settings.get(facts.style, settings)
    widths = _WIDTH_FACTORS if facts.family in ('SLaK', 'ShiftWiseNet') \
        else (1., )
    for name, setting in settings.items():
        for width in widths:
            dims = tuple(int(dim * width) for dim in setting['embed_dims'])
            if (dims, tuple(setting['depths'])) == (facts.embed_dims,
                                                    facts.depths) \
                    and _block_kernels(setting) in (None, facts.kernel_sizes):
                return name, width
    arch = dict(embed_dims=facts.embed_dims, depths=facts.depths)
    if facts.family == 'UniRepLKNet':
        arch['kernel_sizes'] = facts.kernel_sizes
    return arch, 1.


def _block_kernels(setting: dict) -> tuple | None:
    """Kernel sizes of an architecture, one a block."""
    if 'kernel_sizes' not in setting:
        return None
    return tuple(
        tuple(sizes) if isinstance(sizes, Sequence) else (sizes, ) * depth
        for sizes, depth in zip(setting['kernel_sizes'], setting['depths'],
                                strict=True))


def _kernels(facts: Facts) -> tuple[tuple[int, ...], str]:
    chosen, open_ = [], []
    for i, (known, taps) in enumerate(
            zip(facts.kernel_sizes, facts.taps, strict=True)):
        fits = fitting_kernels(taps, facts.small_kernel)
        likely = [size for size in (_KERNELS[i] if i < len(_KERNELS) else ())
                  if size in fits]
        chosen.append(known or (likely or fits)[0])
        open_.append('' if known or len(fits) == 1 else
                     f'{" or ".join(map(str, fits))}')
    if not any(open_):
        return tuple(chosen), ''
    return tuple(chosen), 'the file fits ' + ', '.join(
        text or str(size) for text, size in zip(open_, chosen, strict=True))


def fitting_ghost_ratio(facts: Facts) -> float:
    """A ratio that leaves as many channels as the weights have.

    The choice of ghosts depends on their number only, so that any such ratio
    is the same function; the given one, the published one and none are tried
    before the hundredths.

    Raises:
        ValueError: If none fits.
    """
    tried = [ratio for ratio in (facts.ghost_ratio, _GHOST_RATIO, 0.)
             if ratio is not None]
    for ratio in (*tried, *(i / 100 for i in range(1, 100))):
        try:
            counts = tuple(
                split_channels(dim, ratio, facts.style)[0].numel()
                for dim in facts.embed_dims)
        except ValueError:
            continue
        if counts == facts.convolved:
            return ratio
    raise ValueError(f'no ghost_ratio in hundredths leaves '
                     f'{facts.convolved} of {facts.embed_dims} channels')


def format_config(config: dict, remarks: dict[str, str]) -> str:
    """``backbone=dict(...)`` to paste into a config."""
    lines = ['backbone=dict(']
    for name, value in config.items():
        if isinstance(value, dict):
            value = 'dict({})'.format(', '.join(
                f'{key}={item!r}' for key, item in value.items()))
        else:
            value = repr(value)
        remark = f'  # {remarks[name]}' if name in remarks else ''
        lines.append(f'    {name}={value},{remark}')
    return '\n'.join((*lines, ')'))
