"""Why weights do not fit a model, in the words of its options."""
from __future__ import annotations

import math

from .describe import Facts, fitting_kernels

__all__ = ['differences']


def differences(file: Facts, model: Facts) -> list[str]:
    """What differs between the options of a file and those of a model.

    Args:
        file (Facts): Of the weights.
        model (Facts): Of the model that is to take them, see
            :func:`~shiftwise_mm.checkpoint.describe.describe_model`.

    Returns:
        list[str]: Sentences that name the options, the likeliest cause
        first; empty if nothing differs as far as it shows.
    """
    if file.family is None:
        return []
    if file.family != model.family:
        return [f'the file is of a {file.family}, the model is a '
                f'{model.family}']
    if file.style is not None and file.style != model.style:
        return [f'the file has style={file.style!r}, the model '
                f'{model.style!r}']
    if file.deploy != model.deploy:
        return [_DEPLOYED if file.deploy else _NOT_DEPLOYED]
    if file.form != model.form and (
            file.deploy or 'shared_gated' in (file.form, model.form)):
        return [f'the file has form={file.form!r}, the model {model.form!r}']
    found = []
    for name in ('depths', 'embed_dims', 'in_channels', 'num_paths',
                 'num_reps'):
        ours, theirs = getattr(model, name), getattr(file, name)
        if ours != theirs and ours is not None and _is_known(theirs):
            found.append(f'{name}={theirs} in the file, {ours} in the model'
                         + _hint(name, theirs, ours))
    if file.depths and len(file.depths) == len(model.depths):
        found += _kernels(file, model)
        if file.embed_dims == model.embed_dims:
            found += _ghosts(file, model)
    if None not in (file.layer_scale, model.layer_scale) and \
            file.layer_scale != model.layer_scale:
        found.append(
            'the file has a layer scale, the model none: '
            'layer_scale_init_value must be positive' if file.layer_scale else
            'the file has no layer scale: layer_scale_init_value must be '
            'None')
    return found


_DEPLOYED = ('the file holds the deployed form: build the model with '
             'deploy=True')
_NOT_DEPLOYED = ('the file holds the training form, the model is built with '
                 'deploy=True: load it with deploy=False, then call '
                 'switch_to_deploy()')


def _is_known(option) -> bool:
    return option is not None and not (
        isinstance(option, tuple) and None in option)


def _hint(name: str, theirs, ours) -> str:
    if name == 'depths':
        return ' (arch)'
    if name != 'embed_dims' or len(theirs) != len(ours):
        return ''
    factor = round(theirs[-1] / ours[-1], 2)
    if all(int(dim * factor) == other
           for dim, other in zip(ours, theirs, strict=True)):
        return f' (arch or width_factor: the file is {factor} times as wide)'
    return ' (arch or width_factor)'


def _kernels(file: Facts, model: Facts) -> list[str]:
    if file.family == 'UniRepLKNet' and file.depths == model.depths and \
            file.kernel_sizes != model.kernel_sizes:
        return [f'kernel_sizes={file.kernel_sizes} in the file, '
                f'{model.kernel_sizes} in the model']
    if not file.taps or not model.taps:
        return []
    found = []
    for i, (theirs, ours) in enumerate(
            zip(file.taps, model.taps, strict=True)):
        size, small = model.kernel_sizes[i], file.small_kernel
        given = file.kernel_sizes[i]
        if theirs is None or ours is None or small is None:
            continue
        if small == model.small_kernel and theirs == ours:
            # The function depends on M by its half and its taps.
            if given is not None and size // 2 != given // 2:
                found.append(f'kernel_sizes[{i}]={given} in the file, {size} '
                             'in the model')
            continue
        fits = f'small_kernel={small}'
        kernels = ' or '.join(map(str, fitting_kernels(theirs, small)
                                  if given is None else (given, )))
        if small == model.small_kernel:
            fits = f'kernel_sizes[{i}] of {kernels}'
        elif math.ceil(size / small) != theirs:
            fits += f' with kernel_sizes[{i}] of {kernels}'
        found.append(
            f'stage {i} has {theirs} taps in the file, {ours} in the model: '
            f'kernel_sizes[{i}]={size} with small_kernel='
            f'{model.small_kernel}; the file fits {fits}')
        if small != model.small_kernel:
            break  # the other stages differ for the same reason
    return found


def _ghosts(file: Facts, model: Facts) -> list[str]:
    for i, (theirs, ours) in enumerate(
            zip(file.convolved, model.convolved, strict=False)):
        if None in (theirs, ours) or theirs == ours:
            continue
        dim = file.embed_dims[i]
        fits = file.ghost_ratio if file.ghost_ratio is not None else round(
            1 - theirs / dim, 2)
        return [f'stage {i} convolves {theirs} of {dim} channels in the '
                f'file, {ours} in the model: ghost_ratio='
                f'{model.ghost_ratio}; the file fits about {fits}']
    return []
