"""What measured choices hold for, and the file that keeps them.

``shiftwise_mm/autotune.json`` in the cache folder (``XDG_CACHE_HOME``, else
``~/.cache``): for each environment and each case in it
``{'form': the fastest, 'ms': {form: milliseconds}}``.
"""
from __future__ import annotations

import json
import os
import platform
import tempfile
import warnings
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import torch

from shiftwise_mm.kernels import runtime
from shiftwise_mm.version import __version__

__all__ = ['device_name', 'environment', 'merge', 'read', 'save']

# Environment -> case -> entry.
Choices = dict[str, dict[str, dict]]


def device_name(device: torch.device) -> str:
    """The name of the GPU, or of the processor as Linux has it."""
    if device.type == 'cuda':
        return torch.cuda.get_device_name(device)
    try:
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@lru_cache
def _installation(device: str) -> str:
    """The versions and the device that a time holds for."""
    try:
        taichi = metadata.version('taichi')
    except metadata.PackageNotFoundError:
        taichi = 'none'
    return (f'shiftwise_mm {__version__}, torch {torch.__version__}, '
            f'taichi {taichi}, {device_name(torch.device(device))}')


def environment(device: str) -> str:
    """All outside a case that makes its times invalid, as a line."""
    foreign = ', Taichi of the caller' if runtime.is_foreign() else ''
    return (f'{_installation(device)}, {torch.get_num_threads()} threads'
            f'{foreign}')


def merge(choices: Choices, others: Choices) -> None:
    """Adds ``others`` that are new, or tell of more forms, to ``choices``."""
    for where, cases in others.items():
        known = choices.setdefault(where, {})
        for case, entry in cases.items():
            if case not in known or \
                    entry['ms'].keys() > known[case]['ms'].keys():
                known[case] = entry


def _file() -> Path:
    return runtime.cache_folder() / 'autotune.json'


def read() -> Choices | None:
    """What the file holds; None, with a warning, if it cannot be read."""
    try:
        content = json.loads(_file().read_text(encoding='utf-8'))
        for cases in content.values():
            for entry in cases.values():
                float(entry['ms'].get(entry['form']))
        return content
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError,
            AttributeError) as error:
        warnings.warn(
            f'the measured choices in {_file()} cannot be read, and no new '
            'ones are written; delete the file if it is broken: '
            f'{type(error).__name__}: {error}', RuntimeWarning, stacklevel=2)
        return None


def save(choices: Choices) -> None:
    """Adds to the file what it does not have yet.

    What two processes write in the same moment may lose one's entries, which
    its next writing adds again; never the file. Measurements in which a
    candidate has failed are not kept: it may have lacked memory.
    """
    content = read()
    if content is None:
        return
    merge(content, {
        where: {case: entry for case, entry in cases.items()
                if None not in entry['ms'].values()}
        for where, cases in choices.items()
    })
    new, path = None, _file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, new = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with open(handle, 'w', encoding='utf-8') as file:
            json.dump(content, file, indent=1, sort_keys=True)
        os.replace(new, path)
    except OSError as error:
        warnings.warn(f'the measured choices cannot be written to {path}: '
                      f'{error}', RuntimeWarning, stacklevel=2)
        if new is not None:
            Path(new).unlink(missing_ok=True)
