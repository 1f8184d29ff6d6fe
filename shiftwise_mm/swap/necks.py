"""The necks, by how they take the backbone's levels."""
from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from math import gcd

from mmengine.registry import MODELS

from .names import SwapError
from .original import Level, type_name
from .reader import Reader, channels_of, compare, like

__all__ = ['read_neck', 'read_ssd_head']


def read_neck(neck: Mapping, levels: Sequence[Level], scope: str) -> Reader:
    """Which levels a neck takes: the last, a range, or the range backwards.

    Args:
        neck (Mapping): Its config.
        levels (Sequence[Level]): Of the original backbone.
        scope (str): Scope in which it is built.

    Raises:
        SwapError: If it cannot be told, or cannot be had of four stages.
    """
    name = type_name(neck)
    channels = neck.get('in_channels')
    if name == 'Feature2Pyramid':
        raise SwapError('the neck Feature2Pyramid makes a pyramid out of the '
                        'levels of a plain transformer, which all have one '
                        'stride')
    if name == 'NASFCOS_FPN':
        raise SwapError('the neck NASFCOS_FPN looks at the levels 1 to 3 of '
                        'the backbone by number, and leaves level 0, which '
                        'it needs to be there, without a gradient')
    if channels is None:
        raise SwapError(f'the neck {name} has no in_channels, so that it '
                        'cannot be told how it depends on the backbone')
    last = len(levels) - 1
    if isinstance(channels, int):
        used = (last, )
        compare(name, [channels], levels, used)
        return Reader(name, used, lambda places: dict(
            in_channels=places[last].channels))
    given = list(channels)
    backwards = given != channels_of(levels, range(len(levels))) and \
        given[::-1] == channels_of(levels, range(len(levels)))
    if not backwards:
        compare(name, given, levels, range(len(levels)))
    start = _start_level(neck, scope)
    end = neck.get('end_level', -1)
    stop = len(levels) if end == -1 else end + 1
    if name == 'JPU' and (start or end != -1):
        raise SwapError('the neck JPU takes a part of the levels only, and '
                        'the heads behind it count from there')
    used = tuple(range(start, stop))

    def rewrite(places):
        new = [places[i].channels for i in used]
        changes = dict(
            in_channels=like(channels, new[::-1] if backwards else new))
        if start:
            changes['start_level'] = 0
        if stop != len(levels):
            changes['end_level'] = -1
        if name == 'CSPNeXtPAFPN':
            changes.update(_divisible_groups(neck, new))
        if name == 'SSDNeck':
            changes['out_channels'] = like(
                neck['out_channels'],
                [*new, *neck['out_channels'][len(new):]])
        return changes

    return Reader(name, used, rewrite)


def _divisible_groups(neck: Mapping, channels: Sequence[int]) -> dict:
    """Fewer groups of group norms where they do not divide the channels.

    The blocks of a CSPNeXtPAFPN have a share of the backbone's channels.
    """
    groups = (neck.get('norm_cfg') or {}).get('num_groups')
    if not groups:
        return {}
    inner = [int(c * neck.get('expand_ratio', .5)) for c in channels]
    fewer = gcd(groups, *channels, *inner)
    return dict(norm_cfg=dict(num_groups=fewer)) if fewer != groups else {}


def _start_level(neck: Mapping, scope: str) -> int:
    if 'start_level' in neck:
        return neck['start_level']
    kind = neck['type']
    if isinstance(kind, str):
        with MODELS.switch_scope_and_registry(scope) as registry:
            kind = registry.get(kind)
    option = inspect.signature(kind).parameters.get('start_level') \
        if kind else None
    return option.default if option else 0


def read_ssd_head(part: Mapping, levels: Sequence[Level]) -> Reader:
    """The head behind an SSDNeck, which hands its inputs on."""
    channels = part['bbox_head']['in_channels']
    used = tuple(range(len(levels)))
    return Reader('bbox_head', used, lambda places: dict(bbox_head=dict(
        in_channels=like(channels, [*(places[i].channels for i in used),
                                    *channels[len(used):]]))))
