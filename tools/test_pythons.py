#!/usr/bin/env python3
"""Tests the wheel on every Python of this machine, from 3.10 on.

For each one: a virtual environment with this package's wheel, installed by
pip as a user does (torch, numpy, mmengine, and Taichi where there is a build),
and the tests of operators, layers, backbones and checkpoints. mmcv, mmdet and
mmsegmentation are not there. The last lines are a table.

environment variables:
  STACK       stock (default) or onedl: which mmengine
  TORCH_SPEC  requirement for torch (default: the newest release). Which build
              that is depends on the package index; a build for CUDA takes
              several GB for each Python, for the time of its tests.

exit codes: 0 all tests passed on all of them, 1 some failed, 2 an
environment could not be made, or there is no such Python.
"""
from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from env_setup import checks
from env_setup.process import SetupError, duration, locked, run_logged, say
from env_setup.stacks import choose_stack
from env_setup.stamps import READ_BY_BUILD, SOURCES, source_files
from env_setup.venv import PipFailed, Venv

ROOT = Path(__file__).resolve().parents[1]
OLDEST = (3, 10)
# Of operators, layers, backbones and checkpoints those that take seconds.
TESTS = {
    'test_ops': ('spec', 'strips', 'linear', 'masks', 'operator', 'forms'),
    'test_models': ('backbones', 'shiftwise_net', 'shiftwise_conv2d',
                    'gelu_grn_linear', 'image_classifier'),
    'test_checkpoint': ('safe_globals', 'container', 'convert', 'loading'),
    '.': ('stack', ),
}
EXTRAS = {'stock': 'mmengine', 'onedl': 'onedl'}
SHOWN = ('torch', 'numpy', 'mmengine', 'onedl-mmengine', 'taichi')
_VERSIONS = f'''
from importlib import metadata
for name in {SHOWN!r}:
    try:
        print(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        pass
'''


class Outcome(NamedTuple):
    """What came of one Python."""

    python: str
    versions: Mapping[str, str]
    passed: int
    failed: int
    skipped: int
    seconds: float


def find_pythons(env: Mapping[str, str],
                 wanted: Sequence[str] = ()) -> list[checks.Probe]:
    """Finds one interpreter of each version, oldest first.

    Looked for on ``PATH`` and among the versions of pyenv.

    Args:
        env: ``PATH``, ``HOME``, ``PYENV_ROOT``.
        wanted: Versions such as ``'3.12'``; default: all from 3.10 on.

    Raises:
        SetupError: If there is none, or a wanted one is missing.
    """
    found: dict = {}
    for path in _candidates(env):
        probe = checks.probe_python(path, [])
        if probe and probe.version[:2] >= OLDEST:
            found.setdefault(probe.version[:2], probe)
    names = {'.'.join(map(str, version)): probe
             for version, probe in sorted(found.items())}
    missing = [name for name in wanted if name not in names]
    if missing or not names:
        raise SetupError(f'there is no Python {", ".join(missing) or "3.10"} '
                         f'here, only {", ".join(names) or "older ones"}')
    return [names[name] for name in wanted or names]


def _candidates(env: Mapping[str, str]) -> Iterator[str]:
    root = env.get('PYENV_ROOT') or os.path.join(env.get('HOME', '~'),
                                                 '.pyenv')
    # pyenv's shims are on PATH too, and run only what a project has chosen.
    folders = [*sorted(map(str, Path(root, 'versions').glob('*/bin'))),
               *filter(os.path.isdir, env.get('PATH', '').split(os.pathsep))]
    for folder in folders:
        for name in sorted(os.listdir(folder)):
            if re.fullmatch(r'python3\.\d+', name):
                yield os.path.join(folder, name)


def build_wheel(venv: Venv, folder: Path) -> Path:
    """Builds the package's wheel as ``pip wheel .`` does in a clean copy."""
    copy = folder / 'source'
    shutil.rmtree(copy, ignore_errors=True)
    for path in source_files(ROOT, SOURCES + READ_BY_BUILD):
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    # Whether it runs where pip would refuse it is the question.
    setup = copy / 'setup.py'
    setup.write_text(re.sub("python_requires='.+'", "python_requires='>=3.10'",
                            setup.read_text(encoding='utf-8')))
    venv.pip(['wheel', '--no-deps', '--wheel-dir', str(folder), str(copy)],
             'wheel')
    return next(folder.glob('shiftwise_mm-*.whl'))


def install(venv: Venv, wheel: Path, stack: str, torch: str) -> None:
    """Installs the wheel with what its extras name, and the tests' tools.

    Raises:
        PipFailed: If pip fails with Taichi and without it.
    """
    def pip(*extras: str) -> None:
        venv.pip(['install', torch, 'pytest', 'hypothesis', 'packaging',
                  'pyyaml', 'pillow', f'{wheel}[{",".join(extras)}]'],
                 'install', f'installing {torch}, {", ".join(extras)}')

    try:
        pip(EXTRAS[stack], 'taichi')
    except PipFailed as error:
        if 'No matching distribution found for taichi' not in str(error):
            raise
        say('there is no Taichi for this Python; testing without it')
        pip(EXTRAS[stack])


def run_tests(venv: Venv, probe: checks.Probe, folder: Path) -> Outcome:
    """Runs the tests from an empty folder, so that none sees the source."""
    empty, report = folder / 'empty', folder / 'report.xml'
    empty.mkdir(exist_ok=True)
    report.unlink(missing_ok=True)
    start = time.monotonic()
    result = run_logged(
        [str(venv.python), '-m', 'pytest', '-q', '-m', 'not slow',
         '-p', 'no:cacheprovider', '-c', str(ROOT / 'pyproject.toml'),
         '--rootdir', str(ROOT), f'--junitxml={report}',
         *(str(ROOT / 'tests' / folder / f'test_{name}.py')
           for folder, names in TESTS.items() for name in names)],
        folder / 'tests.log', venv.env, cwd=empty)
    if not report.exists():
        raise SetupError(f'pytest did not run; full output: {result.log}')
    suite = ElementTree.parse(report).getroot().find('testsuite')
    total, errors, failures, skipped = (
        int(suite.get(name)) for name in ('tests', 'errors', 'failures',
                                          'skipped'))
    lines = run_logged([str(venv.python), '-c', _VERSIONS],
                       folder / 'versions.log', venv.env).output.split('\n')
    for line in result.output.splitlines():
        if line.startswith(('FAILED', 'ERROR')):
            say(line)
    return Outcome(
        probe.version_text, dict(line.split() for line in lines if line),
        total - errors - failures - skipped, errors + failures, skipped,
        time.monotonic() - start)


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes as a Markdown table."""
    names = [name for name in SHOWN
             if any(name in outcome.versions for outcome in outcomes)]
    rows = [['Python', *names, 'passed', 'failed', 'skipped', 'time'],
            ['---'] * (len(names) + 5)]
    rows += [[o.python, *(o.versions.get(name, 'none') for name in names),
              str(o.passed), str(o.failed), str(o.skipped),
              duration(o.seconds)] for o in outcomes]
    return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def test_pythons(pythons: Sequence[checks.Probe], base: Path, stack: str,
                 torch: str, keep: bool) -> list[Outcome]:
    """Makes an environment for each Python in turn and tests in it."""
    outcomes = []
    for probe in pythons:
        folder = base / '.'.join(map(str, probe.version[:2]))
        say(f'Python {probe.version_text} ({probe.path})')
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        venv = Venv(folder / 'venv', folder, os.environ)
        venv.create(probe.path)
        install(venv, build_wheel(venv, folder), stack, torch)
        outcomes.append(run_tests(venv, probe, folder))
        say(f'Python {probe.version_text}: {outcomes[-1].passed} passed, '
            f'{outcomes[-1].failed} failed')
        if not keep:
            shutil.rmtree(folder / 'venv')
    return outcomes


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('pythons', nargs='*', metavar='3.x',
                        help='versions to test (default: all found)')
    parser.add_argument('--keep', action='store_true',
                        help='leave the environments in .venv-pythons')
    args = parser.parse_args(argv)
    base = ROOT / '.venv-pythons'
    try:
        stack = choose_stack(os.environ).name
        pythons = find_pythons(os.environ, args.pythons)
        base.mkdir(exist_ok=True)
        with locked(base / 'lock'):
            outcomes = test_pythons(
                pythons, base, stack, os.environ.get('TORCH_SPEC') or 'torch',
                args.keep)
    except SetupError as error:
        say(f'test-pythons: {error}')
        return 2
    print(table(outcomes))
    return int(any(outcome.failed for outcome in outcomes))


if __name__ == '__main__':
    sys.exit(main())
