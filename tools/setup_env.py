#!/usr/bin/env python3
"""Makes .venv: torch, OpenMMLab with compiled ops, Taichi, and this package.

With STACK=onedl it makes .venv-onedl, with the maintained forks of OpenMMLab.

Run it as often as you like: it does what is missing and nothing else. It may
be stopped at any point; the next run goes on or, where a half-done step cannot
be trusted, does it anew. A .venv that it did not make is moved aside.

environment variables:
  STACK             stock (default) or onedl
  PYTHON            the Python 3.11 to use (default: python3, else python3.11)
  TORCH_SPEC        requirement for torch (default: the pin in
                    requirements/runtime.txt), e.g. torch==2.13.0+cpu
  FORCE_CUDA=1      compile mmcv's ops for CUDA (needs nvcc and a torch for
                    CUDA); TORCH_CUDA_ARCH_LIST and MMCV_CUDA_ARGS are heeded
  CXX, MAX_JOBS     C++ compiler and number of compilations at once for mmcv
                    (default: g++, as many as cores and memory allow)
  SHIFTWISE_WHEELS  folder that keeps the built mmcv wheel (default:
                    shiftwise_mm/wheels in ~/.cache or XDG_CACHE_HOME)
pip's own configuration (index, proxy, certificates) is used as it is.

exit codes: 0 .venv is ready, 2 something is missing (one line says what and
how to mend it), 130 interrupted. Full logs: .venv/setup-logs/
"""
from __future__ import annotations

import argparse
import errno
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from env_setup import checks, mmcv
from env_setup.process import SetupError, duration, locked, say
from env_setup.stacks import choose_stack
from env_setup.stamps import (
    READ_BY_BUILD,
    SOURCES,
    Stamps,
    digest,
    source_digest,
    source_files,
)
from env_setup.venv import PipFailed, Venv

STEPS = ('venv', 'packages', 'mmcv', 'package')
VERIFY_PACKAGES = 'import cv2, mmengine, numpy, taichi, torch'
VERIFY_MMCV = '''
import torch
from mmcv.ops import nms
boxes = torch.tensor(
    [[0., 0., 9., 9.], [0., 0., 9., 8.], [20., 20., 30., 30.]])
kept = nms(boxes, torch.tensor([.9, .8, .7]), .5)[1].tolist()
assert kept == [0, 2], f'nms kept {kept}'
'''


class Setup:
    """The set-up of one project folder.

    Each step has a stamp in ``.venv/setup-state``: a digest of all that the
    step depends on, written when the step is done. The stamp ``busy`` is set
    while pip unpacks packages.

    Args:
        root: The project's folder.
        env: The user's environment variables.

    Raises:
        SetupError: ``STACK`` is not known, or requirements are not pins.
    """

    def __init__(self, root: Path, env: Mapping[str, str]):
        self.root = root
        self.env = env
        self.stack = choose_stack(env)
        self.folder = root / self.stack.folder
        self.venv = Venv(self.folder, self.folder / 'setup-logs', env)
        self.done = Stamps(self.folder / 'setup-state')
        self.work = self.folder / 'setup-work'
        self.cache = mmcv.wheel_cache(env)
        self.pins = self.stack.pins(root)
        self.mmcv_version = self.pins[self.stack.mmcv]
        self.default_torch = f'torch=={self.pins["torch"]}'
        self.torch_spec = env.get('TORCH_SPEC') or self.default_torch
        self.wanted = self._wanted_stamps()

    def _wanted_stamps(self) -> dict[str, str]:
        texts = [path.read_text(encoding='utf-8') for path in
                 self.stack.requirements(self.root)]
        # The programs in bin/ name the folder: a moved project needs new ones.
        venv = digest(str(self.folder))
        packages = digest(venv, self.torch_spec, *texts)
        build = digest(packages, self._wheel_key(self.torch_spec))
        package = digest(venv, source_digest(self.root))
        return {'venv': venv, 'packages': packages, 'mmcv': build,
                'package': package}

    def _wheel_key(self, torch: str) -> str:
        return mmcv.wheel_key(self.stack.mmcv, self.mmcv_version, torch,
                              self.env)

    def pending(self) -> list[str]:
        """Lists the steps to do, in order."""
        whole = self.venv.python.exists() and not self.done['busy']
        if not whole or self.done['venv'] != self.wanted['venv']:
            return list(STEPS)
        return [step for step in STEPS
                if self.done[step] != self.wanted[step]]

    def run(self) -> None:
        """Does the pending steps.

        Raises:
            SetupError: Something is missing or a step failed.
        """
        start = time.monotonic()
        steps = self.pending()
        self.check(steps)
        for step in steps:
            # Off while it runs, so that an interrupted step is seen.
            del self.done[step]
            getattr(self, f'make_{step}')()
            self.done[step] = self.wanted[step]
        if steps:
            took = duration(time.monotonic() - start)
            say(f'setup: {self.folder.name} is ready ({took})')

    def check(self, steps: list[str]) -> None:
        """Checks all that the steps need before the first of them starts.

        Raises:
            SetupError: Something is missing.
        """
        if steps and not (self.root / 'setup.py').exists():
            raise SetupError(f'there is no setup.py in {self.root}; run it '
                             'in a complete copy of the project')
        if not set(steps) - {'package'}:
            return
        probe = checks.choose_python(self.env)
        missing = checks.missing_for_venv(probe) if 'venv' in steps else []
        missing += checks.missing_for_packages(probe)
        needs = []
        if 'packages' in steps:
            temporary = Path(self.env.get('TMPDIR') or '/tmp')
            needs = [(self.root, checks.PACKAGES_GIB),
                     (temporary, checks.TEMPORARY_GIB)]
        builds = not mmcv.may_be_cached(
            self.cache, self.stack.mmcv, self.mmcv_version, self.torch_spec,
            self.env)
        if builds:
            missing += checks.missing_for_build(probe, self.env)
            needs.append((self.root, checks.BUILD_GIB))
        checks.require(missing)
        checks.check_disk(needs)
        if builds:
            self._check_cache()

    def _check_cache(self) -> None:
        checks.check_writable(self.cache,
                              'set SHIFTWISE_WHEELS to another folder')

    def make_venv(self) -> None:
        """Makes an empty virtual environment in place of any other."""
        probe = checks.choose_python(self.env)
        self._clear_away()
        say(f'[1/5] making {self.folder.name} with Python '
            f'{probe.version_text} ({probe.path})')
        # Made first, so that a half-made folder is known as our own.
        self.done.folder.mkdir(parents=True)
        self.venv.create(probe.path)

    def _clear_away(self) -> None:
        if not os.path.lexists(self.folder):
            return
        ours = self.done.folder.is_dir()
        if not ours and not (self.folder.is_dir()
                             and not any(self.folder.iterdir())):
            aside = self.folder.with_name(
                self.folder.name + time.strftime('-%Y%m%d-%H%M%S'))
            say(f'setup: {self.folder.name} was not made by this script; '
                f'moving it to {aside.name}')
            os.rename(self.folder, aside)
            return
        if ours:
            say('setup: clearing away an unfinished or outdated '
                f'{self.folder.name}')
        # The state goes last: it marks what is left as ours to clear away.
        for path in sorted(self.folder.iterdir(),
                           key=lambda path: path == self.done.folder):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def make_packages(self) -> None:
        """Installs torch, then everything else that comes ready-made.

        A pip that is killed while it unpacks can leave a package in halves
        that the next pip takes for whole: ``busy`` then condemns the folder.
        """
        self.done['busy'] = 'packages'
        try:
            self._install_packages()
        except PipFailed as error:
            if error.touched_nothing:
                del self.done['busy']
            raise
        fault = self.venv.run_code(VERIFY_PACKAGES, 'verify-packages')
        if fault:
            raise SetupError(f'the installed packages do not import: {fault}; '
                             f'full output: {self.venv.logs}')
        del self.done['busy']

    def _install_packages(self) -> None:
        folder = self.root / 'requirements'
        common = ['-r', str(folder / 'build.txt')]
        if self.torch_spec == self.default_torch:
            # Another torch may ask for other releases than the tested ones.
            common += ['-c', str(folder / 'constraints.txt')]
        self.venv.pip(
            ['install', self.torch_spec, *common], 'install-torch',
            f'[2/5] installing {self.torch_spec.replace("==", " ")}')
        self.done['busy'] = 'packages, torch is installed'
        rest = self.done.folder / 'runtime.txt'
        rest.write_text('\n'.join(
            f'{name}=={version}' for name, version in self.pins.items()
            if name not in ('torch', self.stack.mmcv)))
        # torch is named again lest a dependency replaces it.
        self.venv.pip(
            ['install', f'torch=={self.venv.installed_version("torch")}',
             '-r', str(rest), '-r', str(folder / 'dev.txt'), *common,
             # The forks come as sources; they build with what is pinned.
             '--no-build-isolation'],
            'install-packages',
            '[3/5] installing OpenMMLab, Taichi and the development tools')

    def make_mmcv(self) -> None:
        """Installs mmcv with its ops, from the kept wheel or a new one."""
        torch = mmcv.torch_facts(self.venv.python, self.venv.env)
        key = self._wheel_key(torch.version)
        wheel = mmcv.cached_wheel(self.cache, key)
        title = f'[4/5] {self.stack.mmcv} {self.mmcv_version}'
        if wheel:
            say(f'{title}: installing the wheel kept in {wheel.parent}')
            fault = self._try_mmcv(wheel)
            if not fault:
                return
            say(f'mmcv: the kept wheel does not work ({fault})')
            wheel.unlink()
        # The first check passed over these if the cache held a wheel that
        # turned out to be broken, or for another variant of torch.
        probe = checks.choose_python(self.env)
        checks.require(checks.missing_for_build(probe, self.env))
        self._check_cache()
        say(f'{title}: compiling its ops for torch {torch.version}, once; '
            f'the wheel will be kept in {self.cache}')
        if torch.sees_gpu and not checks.wants_cuda(self.env):
            say('mmcv: torch sees a GPU, but the ops are compiled for the '
                'CPU; set FORCE_CUDA=1 to compile them for CUDA')
        self._build_mmcv(torch, key)

    def _build_mmcv(self, torch: mmcv.TorchFacts, key: str) -> None:
        start = time.monotonic()
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        self.venv.pip(
            ['download', '--no-deps', '--no-build-isolation', '--no-binary',
             self.stack.mmcv, '--dest', str(self.work),
             f'{self.stack.mmcv}=={self.mmcv_version}'],
            'mmcv-source')
        sdist = next(self.work.glob('*.tar.gz'))
        wheel = mmcv.build_wheel(self.venv.python, sdist, self.work,
                                 self.venv.logs, self.venv.env, torch)
        fault = self._try_mmcv(wheel)
        if fault:
            raise SetupError(f'mmcv was compiled but does not work: {fault}; '
                             f'full output: {self.venv.logs}')
        mmcv.keep_wheel(wheel, self.cache, key)
        shutil.rmtree(self.work, ignore_errors=True)
        say(f'mmcv: done in {duration(time.monotonic() - start)}')

    def _try_mmcv(self, wheel: Path) -> str:
        """Installs a wheel of mmcv and runs an op.

        Returns:
            What is wrong with it, empty if it works.
        """
        self.venv.remove_package('mmcv', self.stack.mmcv)
        try:
            self.venv.pip(['install', '--no-deps', str(wheel)],
                          'install-mmcv')
        except PipFailed as error:
            return str(error)
        return self.venv.run_code(VERIFY_MMCV, 'verify-mmcv')

    def make_package(self) -> None:
        """Builds this package's wheel in a clean copy and installs it."""
        copy = self.work / 'package'
        shutil.rmtree(copy, ignore_errors=True)
        # In the project's folder, a build/ left by an earlier build could put
        # files into the wheel that are deleted by now.
        for path in source_files(self.root, SOURCES + READ_BY_BUILD):
            target = copy / path.relative_to(self.root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        self.venv.remove_package('shiftwise_mm')
        self.venv.pip(['install', '--no-deps', '--no-build-isolation',
                       str(copy)], 'install-package',
                      '[5/5] installing shiftwise_mm')
        shutil.rmtree(self.work, ignore_errors=True)


def set_up(root: Path, env: Mapping[str, str]) -> None:
    """Makes a project's .venv ready.

    Raises:
        SetupError: Something is missing or a step failed.
    """
    setup = Setup(root, env)
    if not setup.pending():
        return
    checks.check_writable(root, 'copy the project to a folder of your own')
    with locked(root / f'{setup.folder.name}.lock'):
        # Looked at anew: another set-up may have done it meanwhile.
        Setup(root, env).run()


def _interrupt(*_) -> None:
    raise KeyboardInterrupt


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        '--root', type=Path, default=Path(__file__).resolve().parents[1],
        help='the project\'s folder (default: the one of this script)')
    root = parser.parse_args(arguments).root.resolve()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        set_up(root, os.environ)
        return 0
    except SetupError as error:
        say(f'setup: {error}')
    except OSError as error:
        full = error.errno == errno.ENOSPC
        say('setup: the disk is full; free some space and run it again'
            if full else f'setup: {error}')
    except KeyboardInterrupt:
        say('setup: interrupted; the next run mends what is unfinished')
        return 130
    return 2


if __name__ == '__main__':
    sys.exit(main())
