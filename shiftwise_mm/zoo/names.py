"""Names of the backbones: what can be listed, built and swapped in."""
from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from fnmatch import fnmatchcase

from shiftwise_mm.checkpoint import load_pretrained
from shiftwise_mm.registry import MODELS

__all__ = ['BACKBONES', 'backbone_config', 'build_backbone', 'list_models']

BACKBONES = {
    **{f'shiftwise-{arch}': dict(type='shiftwise_mm.ShiftWiseNet', arch=arch)
       for arch in ('nano', 'tiny', 'small', 'base', 'large')},
    **{f'shiftwise-slak-{arch}': dict(type='shiftwise_mm.ShiftWiseNet',
                                      style='slak', arch=arch)
       for arch in ('nano', 'tiny', 'small', 'base')},
    **{f'slak-{arch}': dict(type='shiftwise_mm.SLaK', arch=arch)
       for arch in ('tiny', 'small', 'base')},
    **{f'unireplknet-{arch}': dict(type='shiftwise_mm.UniRepLKNet', arch=arch)
       for arch in ('a', 'f', 'p', 'n', 't', 's', 'b', 'l', 'xl')},
    **{f'convnext-{arch}': dict(type='shiftwise_mm.ConvNeXt', arch=arch)
       for arch in ('tiny', 'small', 'base')},
}
"""Config of each backbone by its name, as published."""


def list_models(pattern: str | Sequence[str] = '*') -> list[str]:
    """Names of the backbones that fit a pattern, as of a file's name.

    Args:
        pattern (str | Sequence[str]): With ``*``, ``?`` and ``[...]``, such
            as ``'shiftwise-*'``; of several, a name has to fit one. Defaults
            to all.

    Returns:
        list[str]: In the order of the families and their sizes; empty if no
        name fits.

    Raises:
        TypeError: If a pattern is not a str.

    Example:
        >>> list_models('slak-*')
        ['slak-tiny', 'slak-small', 'slak-base']
    """
    patterns = [pattern] if isinstance(pattern, str) else pattern
    if not isinstance(patterns, Sequence) or not all(
            isinstance(each, str) for each in patterns):
        raise TypeError('pattern must be a str or a sequence of them, got '
                        f'{pattern!r}')
    return [name for name in BACKBONES
            if any(fnmatchcase(name, each) for each in patterns)]


def backbone_config(name: str) -> dict:
    """A copy of the config of a backbone.

    Raises:
        ValueError: If the name is not one of :data:`BACKBONES`.
    """
    if name not in BACKBONES:
        raise ValueError(f'backbone must be one of {", ".join(BACKBONES)}, '
                         f'got {name!r}')
    return copy.deepcopy(BACKBONES[name])


def build_backbone(name: str, pretrained: str | os.PathLike | None = None,
                   **options):
    """A backbone by its name.

    Args:
        name (str): One of those that :func:`list_models` lists.
        pretrained (str, optional): A published or native checkpoint, a file
            or URL, whose weights it gets; see
            :func:`~shiftwise_mm.checkpoint.load_pretrained`. Defaults to
            random weights.
        options: Further arguments of its class, such as ``out_indices=(1, 2,
            3)``, ``drop_path_rate=0.2`` or ``deploy=True``.

    Returns:
        nn.Module: In training mode.

    Raises:
        FileNotFoundError: If ``pretrained`` does not exist.
        TypeError: If an option is unknown, or one that the name decides.
        ValueError: If the name is unknown, an option is not allowed, or the
            weights are refused or not those of this backbone.

    Example:
        >>> from shiftwise_mm import build_backbone
        >>> backbone = build_backbone('shiftwise-nano', out_indices=(3, ))
        >>> backbone.embed_dims
        (24, 48, 96, 192)
    """
    config = backbone_config(name)
    decided = sorted(set(config) & set(options))
    if decided:
        raise TypeError(f'{", ".join(decided)} cannot be given, for the name '
                        f'{name!r} decides it')
    if isinstance(pretrained, bool):
        raise TypeError('pretrained must be a file or URL, or None, got '
                        f'{pretrained}: no weights come with the package, '
                        'docs/checkpoints.md lists those that are published')
    kind = config.pop('type')
    backbone = MODELS.get(kind)(**config, **options)
    if pretrained is not None:
        load_pretrained(backbone, pretrained)
    return backbone
