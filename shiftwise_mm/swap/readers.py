"""The parts of a model that take the backbone's levels."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .names import SwapError
from .necks import read_neck, read_ssd_head
from .original import Level, Owner, type_name
from .reader import Place, Reader, channels_of, compare, inside, like

__all__ = ['find_readers']


def find_readers(owner: Owner, levels: Sequence[Level]) -> list[Reader]:
    """All parts that take levels of the backbone of ``owner``.

    Raises:
        SwapError: If it cannot be told which levels a part takes.
    """
    part = owner.config
    neck = part.get('neck')
    if neck:
        listed = isinstance(neck, Sequence)
        reader = read_neck(neck[0] if listed else neck, levels, owner.scope)
        readers = [inside(reader, 'neck', *('0', ) * listed)]
        if reader.name == 'JPU':
            # It hands all but its last input on.
            handed = [*levels[:-1], None]
            readers += _segmentation_heads(part, handed)
        elif reader.name == 'SSDNeck':
            readers.append(read_ssd_head(part, levels))
        return readers
    if 'decode_head' in part:
        return _segmentation_heads(part, levels)
    return _detection_heads(part, levels)


def _segmentation_heads(part: Mapping,
                        levels: Sequence[Level | None]) -> list[Reader]:
    """Heads of MMSegmentation; a level that is None is not the backbone's."""
    readers = []
    for key in ('decode_head', 'auxiliary_head'):
        heads = part.get(key)
        if isinstance(heads, Mapping):
            readers.append(inside(_read_head(heads, levels), key))
        elif heads:
            readers += [inside(_read_head(head, levels), key, str(i))
                        for i, head in enumerate(heads)]
    return readers


def _read_head(head: Mapping, levels: Sequence[Level | None]) -> Reader:
    inner = head.get('kernel_generate_head')
    if inner:  # K-Net: the other stages take what this head gives
        return inside(_read_head(inner, levels), 'kernel_generate_head')
    name = type_name(head)
    channels = head.get('in_channels')
    if channels is None:
        raise SwapError(f'the head {name} has no in_channels, so that it '
                        'cannot be told what it takes')
    count = len(levels)
    listed = isinstance(channels, Sequence)
    given = list(channels) if listed else [channels]
    index = head.get('in_index', -1)
    if listed and not isinstance(index, Sequence):
        index = list(range(count))  # MaskFormers take all
    used = [i % count for i in (index if listed else [index])]
    own = [i for i in used if levels[i]]
    if len(given) != len(used):
        raise SwapError(f'{name} has {len(given)} in_channels for '
                        f'{len(used)} levels')
    kept = list(zip(used, given, strict=True))
    compare(name, [c for i, c in kept if levels[i]], levels, own)
    if name == 'EncHead' and not head.get('add_lateral') \
            and None not in levels:
        kept = kept[-1:]  # it is handed the others and leaves them
    taken = [i for i, _ in kept if levels[i]]
    c1 = head.get('c1_in_channels')
    if c1:
        # The first output, whatever in_index says.
        compare(f'{name} (c1_in_channels)', [c1], levels, [0])
        taken.append(0)

    def rewrite(places):
        new = [places[i].channels if levels[i] else c for i, c in kept]
        changes = dict(
            in_channels=like(channels, new) if listed else new[0])
        if name == 'FCNHead' and head.get('num_convs') == 0:
            changes['channels'] = sum(new)  # there is nothing between
        if c1:
            changes['c1_in_channels'] = places[0].channels
        if 'in_index' in head or not listed:
            changes.update(_new_index(index, [i for i, _ in kept], places))
        return changes

    return Reader(name, tuple(sorted(set(taken))), rewrite)


def _new_index(index, used: Sequence[int],
               places: Mapping[int, Place]) -> dict:
    """``in_index`` where the old one would be wrong."""
    if any(i not in places for i in used):
        return {}  # what a neck adds stays where it is
    new = [places[i].index for i in used]
    old = list(index) if isinstance(index, Sequence) else [index]
    count = places[used[0]].count
    if [i % count if -count <= i < count else i for i in old] == new:
        return {}
    return dict(in_index=like(index, new) if isinstance(index, Sequence)
                else new[0])


def _detection_heads(part: Mapping, levels: Sequence[Level]) -> list[Reader]:
    """Heads of MMDetection that take the backbone's levels directly."""
    if 'shared_head' in part.get('roi_head', {}):
        kind = type_name(part['roi_head']['shared_head'])
        raise SwapError(
            f'the shared head {kind} is the last stage of the original, which '
            'goes on from its third')
    channels = channels_of(levels, range(len(levels)))
    readers = []
    for key, head in part.items():
        if not isinstance(head, Mapping) or key == 'backbone':
            continue
        for path, value in _equal_channels(head, channels):
            readers.append(_detection_reader((key, *path), value,
                                             len(levels)))
    if not readers:
        raise SwapError('there is no neck, and no head has the in_channels '
                        f'{channels} of the backbone')
    return readers


def _equal_channels(part: Mapping, channels: list[int],
                    extractor: bool = False) -> Iterator[tuple]:
    for key, value in part.items():
        if key == 'in_channels' or extractor and key == 'out_channels':
            listed = isinstance(value, Sequence)
            if (list(value) if listed else [value]) == channels:
                yield (key, ), value
        elif isinstance(value, Mapping):
            for path, found in _equal_channels(
                    value, channels, key.endswith('roi_extractor')):
                yield (key, *path), found
        elif isinstance(value, Sequence) and not isinstance(value, str):
            for i, item in enumerate(value):
                if isinstance(item, Mapping):
                    for path, found in _equal_channels(
                            item, channels, key.endswith('roi_extractor')):
                        yield (key, str(i), *path), found


def _detection_reader(path: tuple[str, ...], value, count: int) -> Reader:
    *keys, last = path
    used = tuple(range(count))

    def rewrite(places):
        new = [places[i].channels for i in used]
        return {last: like(value, new) if isinstance(value, Sequence)
                else new[0]}

    return inside(Reader('.'.join(path), used, rewrite), *keys)
