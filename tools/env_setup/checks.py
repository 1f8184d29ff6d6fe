"""What the set-up needs from the machine, checked before anything is done."""
from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from env_setup.process import SetupError

PYTHON = (3, 11)
# Linked by OpenCV and Taichi: library, Debian package.
SHARED_LIBRARIES = {
    'libGL.so.1': 'libgl1',
    'libglib-2.0.so.0': 'libglib2.0-0',
    'libgthread-2.0.so.0': 'libglib2.0-0',
    'libX11.so.6': 'libx11-6',
}
# Free disk space in GiB: the packages once unpacked (a torch for CUDA takes
# several times that), archives while they are unpacked, mmcv's object files.
PACKAGES_GIB = 2.0
TEMPORARY_GIB = 0.6
BUILD_GIB = 0.6

_PROBE = '''
import ctypes, importlib.util, json, os, sys, sysconfig
def loads(name):
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
include = sysconfig.get_paths()['include']
print(json.dumps({
    'version': list(sys.version_info[:3]),
    'venv': all(map(importlib.util.find_spec, ('venv', 'ensurepip'))),
    'headers': os.path.exists(os.path.join(include, 'Python.h')),
    'missing_libraries': [n for n in sys.argv[1:] if not loads(n)]}))
'''


class Probe(NamedTuple):
    """What a Python interpreter said of itself."""

    path: str
    version: tuple
    venv: bool
    headers: bool
    missing_libraries: list

    @property
    def version_text(self) -> str:
        """The version as ``3.11.2``."""
        return '.'.join(map(str, self.version))


class Missing(NamedTuple):
    """A missing thing and the Debian package that brings it."""

    thing: str
    package: str


def probe_python(path: str,
                 libraries: Sequence[str] = tuple(SHARED_LIBRARIES)
                 ) -> Probe | None:
    """Asks an interpreter for its version and what it can use.

    Args:
        path: The interpreter.
        libraries: Names of shared libraries that it should try to load.

    Returns:
        The answer, or None if it does not run.
    """
    try:
        done = subprocess.run([path, '-c', _PROBE, *libraries],
                              stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=60, check=True)
        return Probe(path, **_tupled(json.loads(done.stdout)))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError):
        return None


def _tupled(answer: dict) -> dict:
    return {**answer, 'version': tuple(answer['version'])}


def choose_python(env: Mapping[str, str]) -> Probe:
    """Finds the Python 3.11 to build ``.venv`` with.

    ``PYTHON`` of the environment alone if set, else ``python3``, else
    ``python3.11`` of ``PATH``.

    Raises:
        SetupError: None of them is Python 3.11; names what was found.
    """
    wanted = '.'.join(map(str, PYTHON))
    names = [env['PYTHON']] if env.get('PYTHON') else [
        'python3', f'python{wanted}']
    found = []
    for name in names:
        path = shutil.which(name, path=env.get('PATH', ''))
        probe = probe_python(path) if path else None
        if probe and probe.version[:2] == PYTHON:
            return probe
        found.append(f'{name} is {probe.version_text} ({path})' if probe else
                     f'{name} ({path}) does not run' if path else
                     f'no {name} on PATH')
    raise SetupError(
        f'needs Python {wanted}, but {", ".join(found)}; install it (apt-get '
        f'install python{wanted} python{wanted}-venv python{wanted}-dev) or '
        f'name one: make setup PYTHON=/path/to/python{wanted}')


def missing_for_venv(probe: Probe) -> list[Missing]:
    """Lists what the interpreter lacks to make a virtual environment."""
    if probe.venv:
        return []
    version = '.'.join(map(str, PYTHON))
    return [Missing(f'the venv and ensurepip modules of {probe.path}',
                    f'python{version}-venv')]


def missing_for_packages(probe: Probe) -> list[Missing]:
    """Lists the shared libraries that the packages could not load."""
    return [Missing(f'the shared library {name}',
                    SHARED_LIBRARIES.get(name, name))
            for name in probe.missing_libraries]


def missing_for_build(probe: Probe, env: Mapping[str, str]) -> list[Missing]:
    """Lists what compiling mmcv's ops lacks."""
    missing = []
    compiler = compiler_of(env)
    if not shutil.which(compiler[0], path=env.get('PATH', '')):
        missing.append(Missing(
            f'the C++ compiler {compiler[0]} (compiles mmcv\'s ops)', 'g++'))
    if not probe.headers:
        version = '.'.join(map(str, PYTHON))
        missing.append(Missing(f'Python.h, the headers of {probe.path}',
                               f'python{version}-dev'))
    if wants_cuda(env) and not _has_nvcc(env):
        missing.append(Missing(
            'the CUDA compiler nvcc (asked for by FORCE_CUDA=1; set CUDA_HOME '
            'if it is installed)', 'nvidia-cuda-toolkit'))
    return missing


def require(missing: Sequence[Missing]) -> None:
    """Raises a SetupError naming all missing things and how to get them."""
    if missing:
        packages = list(dict.fromkeys(item.package for item in missing))
        raise SetupError(
            f'missing {", ".join(item.thing for item in missing)}; mend it '
            f'with: apt-get install {" ".join(packages)}')


def compiler_of(env: Mapping[str, str]) -> list[str]:
    """Returns the C++ compiler's command: ``CXX``, by default g++."""
    return shlex.split(env.get('CXX', '')) or ['g++']


def wants_cuda(env: Mapping[str, str]) -> bool:
    """Tells whether mmcv's ops shall be compiled for CUDA."""
    return env.get('FORCE_CUDA', '0') == '1'


def _has_nvcc(env: Mapping[str, str]) -> bool:
    home = env.get('CUDA_HOME') or env.get('CUDA_PATH') or '/usr/local/cuda'
    return bool(shutil.which('nvcc', path=env.get('PATH', ''))
                or os.access(os.path.join(home, 'bin', 'nvcc'), os.X_OK))


def check_writable(folder: Path, mend: str) -> None:
    """Raises a SetupError with a mend if no file can be made in a folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Permission bits do not tell of a read-only mount; a file does.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SetupError(f'cannot write in {folder} ({error.strerror}); '
                         f'{mend}') from error


def check_disk(needs: Sequence[tuple[Path, float]]) -> None:
    """Checks free space, adding up needs on the same file system.

    Args:
        needs: Folders, which need not exist yet, and the GiB needed there.

    Raises:
        SetupError: A file system has less than needed.
    """
    totals: dict = {}
    for folder, gib in needs:
        while not folder.exists():
            folder = folder.parent
        device = folder.stat().st_dev
        first, total = totals.get(device, (folder, 0.0))
        totals[device] = first, total + gib
    for folder, total in totals.values():
        free = shutil.disk_usage(folder).free / 2**30
        if free < total:
            raise SetupError(
                f'not enough disk space at {folder}: about {total:.1f} GiB '
                f'are needed, {free:.1f} GiB are free; free some and run it '
                'again')
