"""What is installed: versions and compilers. Imports nothing for it."""
from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sysconfig
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from shiftwise_mm.stack import ONEDL, STOCK, find_stack

from .check import BROKEN, OK, Check
from .mends import distribution_of, requirement_of, requirements

__all__ = ['MODULES', 'check_stack', 'check_versions', 'compilers',
           'has_module', 'versions']

MODULES = ('torch', 'numpy', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'taichi',
           'onnx', 'onnxruntime', 'cv2', 'pycocotools', 'ftfy', 'regex',
           'setuptools')
"""Import names of what the package runs on."""


def has_module(name: str) -> bool:
    """Whether a top-level module is there; it is not imported."""
    return find_spec(name) is not None


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str | None]:
    """Versions by distribution, Python's first; None for what is absent."""
    names = ['shiftwise_mm', *map(distribution_of, MODULES)]
    if _version('mmcv-lite'):
        names.append('mmcv-lite')
    return {'python': platform.python_version(),
            **{name: _version(name) for name in names}}


def check_stack() -> Check:
    """Which stack of OpenMMLab is installed."""
    try:
        stack = find_stack()
    except RuntimeError as error:
        names = [name for name in _openmmlab() if _version(name)]
        return Check('stack', BROKEN, str(error),
                     f'pip uninstall -y {" ".join(names)}')
    text = {'stock': 'OpenMMLab\'s own releases',
            'onedl': 'the maintained forks (onedl)'}[stack.name]
    return Check('stack', OK, text)


def _openmmlab() -> list[str]:
    return [*STOCK.distributions.values(), *ONEDL.distributions.values()]


def check_versions() -> list[Check]:
    """Versions outside of what this package asks for."""
    try:
        from packaging.requirements import Requirement
    except ImportError:  # pip has one of its own
        from pip._vendor.packaging.requirements import Requirement
    found = []
    for name, text in requirements().items():
        version = _version(name)
        if version and not Requirement(text).specifier.contains(
                version, prereleases=True):
            found.append(Check(
                name, BROKEN, f'{version} is installed, needed is {text}',
                f'pip install {requirement_of(name)}'))
    return found


def compilers() -> dict[str, str | None]:
    """First line of what each compiler says of itself; None without one.

    ``c++`` is what builds mmcv's ops and what ``torch.compile`` uses
    (``CXX``, by default ``g++``), ``nvcc`` that of CUDA, ``python_headers``
    the folder of ``Python.h``.
    """
    home = os.environ.get('CUDA_HOME', '/usr/local/cuda')
    headers = Path(sysconfig.get_paths()['include'])
    return {
        'c++': _says(shlex.split(os.environ.get('CXX', '')) or ['g++']),
        'nvcc': _says(['nvcc']) or _says([f'{home}/bin/nvcc']),
        'python_headers':
        str(headers) if (headers / 'Python.h').exists() else None,
    }


def _says(command: list[str]) -> str | None:
    if not shutil.which(command[0]):
        return None
    try:
        done = subprocess.run([*command, '--version'], capture_output=True,
                              text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.splitlines()), None)
