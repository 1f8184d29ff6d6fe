"""A part of a model that takes levels of the backbone."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .names import SwapError
from .original import Level

__all__ = ['Place', 'Reader', 'channels_of', 'compare', 'inside', 'like']


@dataclass(frozen=True)
class Place:
    """Where a level is after the swap.

    Args:
        index (int): Its place among the outputs.
        channels (int): Its channels.
        count (int): How many outputs there are.
    """
    index: int
    channels: int
    count: int


@dataclass(frozen=True)
class Reader:
    """A neck or head that takes levels of the backbone.

    Args:
        name (str): For messages.
        levels (tuple[int]): Which levels of the original it takes.
        rewrite (Callable): Places by level -> what must change, keys from
            the part that owns the backbone on; an element of a list has its
            index as a string for a key.
    """
    name: str
    levels: tuple[int, ...]
    rewrite: Callable[[Mapping[int, Place]], dict]


def inside(reader: Reader, *keys: str) -> Reader:
    """The same, with changes of a part that is under ``keys``."""

    def rewrite(places):
        changes = reader.rewrite(places)
        for key in reversed(keys):
            changes = {key: changes}
        return changes

    return Reader(reader.name, reader.levels, rewrite)


def like(original, values: Sequence):
    """In the container of the original: some parts accept one kind only."""
    return tuple(values) if isinstance(original, tuple) else list(values)


def channels_of(levels: Sequence[Level], used: Sequence[int]) -> list[int]:
    """Channels of the levels of these numbers."""
    return [levels[i].channels for i in used]


def compare(name: str, given: Sequence[int], levels: Sequence[Level],
            used: Sequence[int]) -> None:
    """Raises SwapError unless a part is given the channels of its levels."""
    if list(given) != channels_of(levels, used):
        raise SwapError(
            f'{name} takes {list(given)} channels, but the levels of the '
            f'backbone have {channels_of(levels, used)}')
