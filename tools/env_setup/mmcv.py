"""Builds mmcv with its compiled ops, once, and keeps the wheel.

mmcv has no wheel with ops for this torch, and compiling it is slow: each of
its files parses torch's headers anew. Here these headers are compiled once
into a precompiled header that all files share.
"""
from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from env_setup.checks import PYTHON, compiler_of, wants_cuda
from env_setup.process import Result, SetupError, duration, run_logged, say

GIB_PER_JOB = 1.75
# g++ takes the precompiled header only if it was made with the very flags of
# the later compilations, and says nothing if it does not.
PCH_CFLAGS = ['-g0', '-O2', '-w']
PCH_SOURCE = '#include <torch/types.h>\n'

_TORCH_FACTS = '''
import json, os, sysconfig, torch
print(json.dumps({'version': torch.__version__,
                  'root': os.path.dirname(torch.__file__),
                  'python_include': sysconfig.get_paths()['include'],
                  'sees_gpu': torch.cuda.is_available()}))
'''


class TorchFacts(NamedTuple):
    """The installed torch: full version, folder, Python's headers, GPU."""

    version: str
    root: str
    python_include: str
    sees_gpu: bool


class BuildFailed(Exception):
    """The compilation ended with an error; carries the result."""

    def __init__(self, result: Result):
        super().__init__(f'exit code {result.code}, see {result.log}')
        self.result = result


def torch_facts(python: Path, env: dict[str, str]) -> TorchFacts:
    """Imports torch in the environment and asks it for its facts.

    Raises:
        SetupError: torch does not import.
    """
    done = subprocess.run([str(python), '-c', _TORCH_FACTS], env=env,
                          stdin=subprocess.DEVNULL, capture_output=True,
                          text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ['no message'])[-1]
        raise SetupError(f'the installed torch does not import: {last}')
    return TorchFacts(**json.loads(done.stdout.splitlines()[-1]))


def wheel_cache(env: Mapping[str, str]) -> Path:
    """Returns the folder that keeps built wheels.

    ``SHIFTWISE_WHEELS``, or ``shiftwise_mm/wheels`` in the user's cache.

    Raises:
        SetupError: Neither is set and the user has no home folder.
    """
    named = env.get('SHIFTWISE_WHEELS')
    base = env.get('XDG_CACHE_HOME') or '~/.cache'
    try:
        return Path(named or f'{base}/shiftwise_mm/wheels'
                    ).expanduser().absolute()
    except RuntimeError:
        raise SetupError('this user has no home folder; name a folder for the '
                         'built wheel in SHIFTWISE_WHEELS') from None


def wheel_key(name: str, version: str, torch: str,
              env: Mapping[str, str]) -> str:
    """Names a build of mmcv by all that its binary depends on.

    Args:
        name: Distribution of mmcv, e.g. ``onedl-mmcv``.
        version: Version of mmcv.
        torch: Full version of torch, e.g. ``2.13.0+cpu``.
        env: ``FORCE_CUDA``, and with it ``TORCH_CUDA_ARCH_LIST``.
    """
    device = 'cpu'
    if wants_cuda(env):
        archs = re.findall(r'[\w.+]+', env.get('TORCH_CUDA_ARCH_LIST', ''))
        device = '-'.join(['cuda', *archs])
    tag = 'cp' + ''.join(map(str, PYTHON))
    return (f'{name}-{version}_torch-{torch}_{tag}_{platform.machine()}_'
            f'{device}')


def cached_wheel(cache: Path, key: str) -> Path | None:
    """Returns the kept wheel of a build, or None."""
    return next(iter(sorted((cache / key).glob('*.whl'))), None)


def may_be_cached(cache: Path, name: str, version: str, torch_spec: str,
                  env: Mapping[str, str]) -> bool:
    """Tells, before torch is installed, whether a wheel may be there.

    Without a local part (``+cpu``) in the requirement any will do; a
    requirement that is not ``torch==x`` may mean any version.
    """
    pinned = re.fullmatch(r'\s*torch\s*==\s*([\w.+!-]+)\s*', torch_spec)
    torch = pinned.group(1) if pinned else ''
    local = '' if '+' in torch else r'(\+[\w.]+)?'
    wanted = re.escape(torch) + local if pinned else '[^_]+'
    marker = 'VERSION'
    pattern = re.escape(wheel_key(name, version, marker, env)).replace(
        marker, wanted)
    return cache.is_dir() and any(
        re.fullmatch(pattern, entry.name) and cached_wheel(cache, entry.name)
        for entry in cache.iterdir())


def keep_wheel(wheel: Path, cache: Path, key: str) -> Path:
    """Puts a wheel into the cache in one step, and returns its place there.

    Raises:
        OSError: The cache cannot be written.
    """
    place = cache / key / wheel.name
    place.parent.mkdir(parents=True, exist_ok=True)
    # Copied first: the cache may be on another disk, and nobody may find a
    # half-written wheel under the final name.
    handle, temporary = tempfile.mkstemp(prefix='.part-', dir=place.parent)
    os.close(handle)
    try:
        shutil.copyfile(wheel, temporary)
        os.chmod(temporary, 0o644)
        os.replace(temporary, place)
    except BaseException:
        os.unlink(temporary)
        raise
    return place


def job_count(env: Mapping[str, str]) -> int:
    """Counts the compilations to run at once.

    ``MAX_JOBS`` if set, else the usable cores, as far as the memory goes.
    """
    if env.get('MAX_JOBS', '').isdigit():
        return max(1, int(env['MAX_JOBS']))
    return max(1, min(_usable_cores(), int(_free_gib() / GIB_PER_JOB)))


def _usable_cores() -> int:
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    quota, _, period = _read('/sys/fs/cgroup/cpu.max').partition(' ')
    if quota.isdigit() and period.isdigit():
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def _free_gib() -> float:
    """Free memory, of this container if it has a limit of its own."""
    available = re.search(r'MemAvailable:\s*(\d+) kB', _read('/proc/meminfo'))
    free = int(available.group(1)) / 2**20 if available else 4.0
    limit = _read('/sys/fs/cgroup/memory.max')
    used = _read('/sys/fs/cgroup/memory.current')
    if limit.isdigit() and used.isdigit():
        free = min(free, (int(limit) - int(used)) / 2**30)
    return free


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ''


def unpack_source(sdist: Path, folder: Path) -> Path:
    """Unpacks the source archive into an empty folder; returns its root."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.unpack_archive(str(sdist), str(folder))
    return next(path.parent for path in folder.glob('*/setup.py'))


def build_wheel(python: Path, sdist: Path, work: Path, logs: Path,
                env: dict[str, str], torch: TorchFacts) -> Path:
    """Compiles mmcv and returns the wheel, which lies in ``work``.

    With the precompiled header first; if that fails, without it.

    Args:
        python: Interpreter of the environment that holds torch, setuptools,
            wheel, ninja and psutil.
        sdist: mmcv's source archive.
        work: Folder for all intermediate files.
        logs: Folder for the compiler's output.
        env: Environment; ``FORCE_CUDA``, ``CXX`` and ``MAX_JOBS`` are heeded.
        torch: Facts about the torch to compile against.

    Raises:
        SetupError: mmcv does not compile.
    """
    jobs = job_count(env)
    env = {**env, 'MMCV_WITH_OPS': '1', 'MAX_JOBS': str(jobs),
           'CXX': shlex.join(compiler_of(env))}
    if wants_cuda(env):
        say('mmcv: for CUDA, hence without the precompiled header, which nvcc '
            f'cannot use; can take half an hour; {jobs} files at a time')
        return _build_plain(python, sdist, work, logs, env)
    # mmcv builds for CUDA whenever torch sees a GPU; only FORCE_CUDA is to
    # decide here, since the kept wheel is named after it.
    env['CUDA_VISIBLE_DEVICES'] = ''
    say(f'mmcv: takes about 3 minutes on 2 cores; {jobs} files at a time')
    try:
        header = compile_header(work / 'header', logs, env, torch)
        fast = {name: value for name, value in env.items()
                if name not in ('CPPFLAGS', 'CXXFLAGS')}
        fast['CFLAGS'] = shlex.join([*PCH_CFLAGS, '-include', str(header)])
        return _build(python, sdist, work, logs / 'mmcv.log', fast)
    except BuildFailed as error:
        _check_space(error.result)
        say(f'mmcv: warning: the build with a precompiled header failed '
            f'({error}); building without it, about 12 minutes on 2 cores')
        return _build_plain(python, sdist, work, logs, env)


def _build_plain(python: Path, sdist: Path, work: Path, logs: Path,
                 env: dict[str, str]) -> Path:
    try:
        return _build(python, sdist, work, logs / 'mmcv-plain.log', env)
    except BuildFailed as error:
        _check_space(error.result)
        raise SetupError(f'mmcv does not compile: '
                         f'{first_error(error.result.output)}; full output: '
                         f'{error.result.log}') from None


def compile_header(folder: Path, logs: Path, env: dict[str, str],
                   torch: TorchFacts) -> Path:
    """Compiles torch's headers into ``<folder>/pre.h.gch``.

    Returns:
        The path of ``pre.h``, for ``-include``.

    Raises:
        BuildFailed: The compiler refused.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    header = folder / 'pre.h'
    header.write_text(PCH_SOURCE)
    include = f'{torch.root}/include'
    say('mmcv: compiling the header that all files share (about 15s)')
    result = run_logged(
        [*compiler_of(env), *PCH_CFLAGS, '-fPIC', f'-I{include}',
         f'-I{include}/torch/csrc/api/include', f'-I{torch.python_include}',
         '-std=c++17', '-DTORCH_API_INCLUDE_EXTENSION_H',
         '-DTORCH_EXTENSION_NAME=_ext', '-x', 'c++-header', str(header),
         '-o', f'{header}.gch'], logs / 'mmcv-header.log', env)
    if result.code:
        raise BuildFailed(result)
    return header


def _build(python: Path, sdist: Path, work: Path, log: Path,
           env: dict[str, str]) -> Path:
    """Runs mmcv's own build in a fresh copy of its source."""
    source = unpack_source(sdist, work / 'source')
    out = work / 'dist'
    shutil.rmtree(out, ignore_errors=True)
    result = run_logged(
        [str(python), 'setup.py', 'bdist_wheel', '--dist-dir', str(out)],
        log, env, cwd=source,
        on_tick=lambda output, seconds: say(progress(output, seconds)))
    wheels = sorted(out.glob('*.whl'))
    if result.code or not wheels:
        raise BuildFailed(result)
    return wheels[0]


def progress(output: str, seconds: float) -> str:
    """Words how far ninja is, from its last ``[37/95]``."""
    steps = re.findall(r'^\[(\d+)/(\d+)\]', output, re.M)
    done = f'compiled {steps[-1][0]} of {steps[-1][1]} files' if steps else (
        'preparing')
    return f'mmcv: {done}, {duration(seconds)}'


def first_error(output: str) -> str:
    """Picks the line of a compiler's output that tells most."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r'\berror\b', line, re.I)]
    return (errors or lines[-1:] or ['no output'])[0]


def _check_space(result: Result) -> None:
    if 'No space left on device' in result.output:
        raise SetupError('the disk ran full while mmcv was compiled; free '
                         'some space and run it again')
