"""The short config of a swap: it inherits and overrides the difference."""
from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmengine.config import Config

from shiftwise_mm.config_paths import configs_of

from .names import SwapError
from .plan import Swap

__all__ = ['base_of', 'read_config', 'short_config', 'short_name',
           'write_short_config']

_WIDTH = 79
_PACKAGES = ('mmdet', 'mmseg', 'shiftwise_mm')
# What mmengine takes for the path of a config inside a package.
_INHERITABLE = re.compile(r'\w+::\w+/')


def read_config(config: str) -> Config:
    """A config by its path or, inside a package, as ``'mmdet::...'``.

    Folders with a ``+`` or a dot in the name, such as ``mmdet::gn+ws``, are
    read by path, as mmengine cannot inherit from them otherwise.

    Raises:
        SwapError: If it cannot be read.
    """
    config = base_of(config)
    try:
        if '::' not in config:
            return Config.fromfile(os.path.expanduser(config))
        # Only a base may have this form.
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, Path(config).name)
            path.write_text(f'_base_ = {config!r}\n', encoding='utf-8')
            return Config.fromfile(str(path))
    # A config is a program: it may raise anything.
    except Exception as error:
        error = error.__cause__ or error
        reason = str(error).strip().partition('\n')[0]
        raise SwapError('the config cannot be read: '
                        f'{type(error).__name__}: {reason}') from error


def base_of(config: str, folder: str | os.PathLike = '.') -> str:
    """How a config in ``folder`` names another one as its base.

    ``'mmdet::...'`` stays, and stands for a path inside an installed package
    as well, if mmengine takes it; other paths become relative to ``folder``.
    """
    path = os.path.abspath(os.path.expanduser(config))
    for package in _PACKAGES:
        try:
            root = configs_of(package)
        except FileNotFoundError:  # not installed
            continue
        if config.startswith(f'{package}::'):
            path = root / config.partition('::')[2]
        if Path(path).is_relative_to(root):
            name = f'{package}::{Path(path).relative_to(root).as_posix()}'
            if _INHERITABLE.match(name):
                return name
            break
    if '::' in str(path):
        return config
    return Path(os.path.relpath(path, folder)).as_posix()


def short_name(config: str, swap: Swap) -> str:
    """File name of a swapped config: the original's, then the backbone."""
    stem = Path(config.rpartition('::')[2]).stem
    joint = '_' if _is_lazy(config) else '-'
    return f'{stem}_{swap.name.replace("-", joint)}.py'


def write_short_config(cfg: Config, swap: Swap, config: str,
                       folder: str | os.PathLike) -> Path:
    """Writes :func:`short_config` into ``folder``; returns its path.

    A file that is there already is left alone, unless it is the same.

    Raises:
        SwapError: If the file would not read back as the swapped config, or
            another one is in its place.
        OSError: If it cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / short_name(config, swap)
    text = short_config(cfg, swap, config, folder)
    if path.exists() and path.read_text(encoding='utf-8') != text:
        raise SwapError(f'{path} exists and is a different config')
    # Complete before it has its name, and where its base can be found.
    temporary = path.with_name(f'tmp{os.getpid()}_{path.name}')
    try:
        temporary.write_text(text, encoding='utf-8')
        if read_config(str(temporary)).to_dict() != swap.apply(cfg).to_dict():
            raise SwapError('the short config reads differently from the '
                            'swapped one')
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def short_config(cfg: Config, swap: Swap, config: str,
                 folder: str | os.PathLike = '.') -> str:
    """The text of a config that inherits from another one.

    Args:
        cfg (Config): The original.
        swap (Swap): What changes in it.
        config (str): Path or ``'mmdet::...'`` of the original.
        folder (str): Where the text will be kept. Defaults to the current
            folder.

    Raises:
        SwapError: If the original is of the pure Python style and its path
            cannot be written as an import.
    """
    base = base_of(config, folder)
    lazy = _is_lazy(config)
    if lazy:
        lines = ['from mmengine.config import read_base', '',
                 'with read_base():',
                 f'    from {_module(base)} import *  # noqa: F403', '']
    else:
        lines = [f'_base_ = {base!r}']
    for key in sorted(swap.changes):
        value = swap.changes[key]
        origin = key if lazy else f'_base_.{key}'
        node = _node(value, cfg.get(key), origin)
        if lazy and isinstance(value, Mapping):
            lines += [f'{key}.merge(', f'    {_format(node, 4)})']
        else:
            lines.append(f'{key} = {_format(node, 0, len(key) + 3)}')
    if swap.hook:
        hook = _format(_node(swap.hook, None, ''), 4)
        key = 'custom_hooks'
        if cfg.get(key):
            old = key if lazy else f'_base_.{key}'
            lines.append(f'{key} = [\n    *{old},\n    {hook}\n]')
        else:
            lines.append(f'{key} = [{hook}]')
    return '\n'.join(lines) + '\n'


def _is_lazy(config: str) -> bool:
    """Whether it is of the pure Python style."""
    return '::' not in config and Config._is_lazy_import(
        os.path.expanduser(config))


def _is_identifier(*names: str) -> bool:
    return all(name.isidentifier() for name in names)


def _module(base: str) -> str:
    *folders, file = base.split('/')
    names = [name for name in folders if name != '..']
    stem = file.removesuffix('.py')
    if not _is_identifier(*names, stem):
        raise SwapError(
            f'{base} is a config of the pure Python style, which can be '
            'inherited from only by import, and its path is no Python name')
    return '.' * (1 + len(folders) - len(names)) + '.'.join([*names, stem])


def _node(value, original, origin: str):
    """Code, ``('dict', first, items)`` or ``('list', items)``."""
    if isinstance(value, Mapping):
        if value and all(key.isdigit() for key in value):
            return 'list', _elements(value, original, origin)
        return 'dict', None, _items(value, original, origin)
    if isinstance(value, list) and any(isinstance(v, Mapping)
                                       for v in value):
        return 'list', [_node(v, None, '') for v in value]
    return repr(value)


def _items(value: Mapping, original, origin: str) -> dict:
    original = original if isinstance(original, Mapping) else {}
    return {key: _node(item, original.get(key), f'{origin}.{key}')
            for key, item in value.items()}


def _elements(value: Mapping, original: Sequence, origin: str) -> list:
    """A list as a whole, its unchanged elements by reference."""
    nodes, last = [], max(map(int, value))
    for i in range(last + 1):
        element = f'{origin}[{i}]'
        change = value.get(str(i))
        nodes.append(element if change is None
                     else _updated(change, original[i], element))
    if last + 1 < len(original):
        nodes.append(f'*{origin}[{last + 1}:]')
    return nodes


def _updated(change: Mapping, original: Mapping, origin: str):
    """The whole of a dict of the base, changed: nothing merges in lists."""
    if change.get('_delete_'):
        return _node({key: value for key, value in change.items()
                      if key != '_delete_'}, None, '')
    items = {}
    for key, value in change.items():
        inner, place = original.get(key), f'{origin}.{key}'
        items[key] = _updated(value, inner, place) \
            if isinstance(value, Mapping) and isinstance(inner, Mapping) \
            else _node(value, inner, place)
    return 'dict', origin, items


def _format(node, indent: int, used: int = 0) -> str:
    """Python code, broken into lines where it is too long for one."""
    line = _one_line(node)
    if isinstance(node, str) or len(line) + indent + used < _WIDTH - 2:
        return line
    inner = ' ' * (indent + 4)
    if node[0] == 'list':
        opening, closing = '[', ']'
        parts = [_format(item, indent + 4) for item in node[1]]
    else:
        opening, closing = 'dict(', ')'
        parts = [node[1]] if node[1] else []
        parts += [f'{key}={_format(item, indent + 4, len(key) + 1)}'
                  for key, item in node[2].items()]
    return f'{opening}\n{inner}' + f',\n{inner}'.join(parts) + closing


def _one_line(node) -> str:
    if isinstance(node, str):
        return node
    if node[0] == 'list':
        return f'[{", ".join(map(_one_line, node[1]))}]'
    parts = [node[1]] if node[1] else []
    parts += [f'{key}={_one_line(item)}' for key, item in node[2].items()]
    return f'dict({", ".join(parts)})'
