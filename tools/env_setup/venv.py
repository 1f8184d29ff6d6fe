"""One virtual environment: programs run in it, packages put into it."""
from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from env_setup.checks import PYTHON
from env_setup.process import Result, SetupError, duration, run_logged, say

NETWORK_SIGNS = (
    'NewConnectionError', 'ConnectTimeoutError', 'ReadTimeoutError',
    'ProxyError', 'SSLError', 'NameResolutionError', 'Connection refused',
    'Network is unreachable', 'Temporary failure in name resolution',
    'Read timed out', 'Connection reset by peer', 'Remote end closed')


class PipFailed(SetupError):
    """pip failed.

    Args:
        result: How it ended.
    """

    def __init__(self, result: Result):
        super().__init__(pip_fault(result))
        self.result = result

    @property
    def touched_nothing(self) -> bool:
        """True if pip gave up before it began to unpack anything."""
        return (self.result.code > 0
                and 'Installing collected' not in self.result.output)


class Venv:
    """A virtual environment and the folder for the logs of its tools.

    Args:
        folder: The environment's folder.
        logs: Folder for logs.
        env: The user's environment variables.
    """

    def __init__(self, folder: Path, logs: Path, env: Mapping[str, str]):
        self.folder = folder
        self.logs = logs
        self.python = folder / 'bin' / 'python'
        self.env = {name: value for name, value in env.items()
                    if name not in ('PYTHONHOME', 'PYTHONPATH')}
        self.env['PATH'] = f'{folder / "bin"}{os.pathsep}{env.get("PATH", "")}'
        # A PIP_USER=1 of the user's own is an error inside an environment.
        self.env.update(VIRTUAL_ENV=str(folder), PIP_USER='0',
                        PIP_DISABLE_PIP_VERSION_CHECK='1', PIP_NO_INPUT='1')

    def create(self, python: str) -> None:
        """Makes the environment; its folder may exist.

        Raises:
            SetupError: Python's venv module failed.
        """
        result = run_logged([python, '-m', 'venv', str(self.folder)],
                            self.logs / 'venv.log', self.env)
        if result.code:
            raise SetupError(
                f'making {self.folder.name} failed: {last_line(result)}; full '
                f'output: {result.log}')

    def run_code(self, code: str, log: str) -> str:
        """Runs Python code, away from the project's folder.

        Returns:
            The last line of its output if it failed, else nothing.
        """
        result = run_logged([str(self.python), '-c', code],
                            self.logs / f'{log}.log', self.env,
                            cwd=self.folder)
        return last_line(result) if result.code else ''

    def pip(self, arguments: list[str], log: str, title: str = '') -> None:
        """Runs pip.

        Args:
            arguments: pip's command and its arguments.
            log: Name of the log file, without suffix.
            title: What to say is being done, with the time; nothing is said
                without it.

        Raises:
            PipFailed: It failed; the text tells a missing network or a full
                disk, else pip's own message.
        """
        def tick(output: str, seconds: float) -> None:
            say(f'{title}: {duration(seconds)} {pip_activity(output)}')

        if title:
            say(f'{title} ...')
        start = time.monotonic()
        result = run_logged(
            [str(self.python), '-m', 'pip', *arguments,
             '--progress-bar', 'off'], self.logs / f'{log}.log', self.env,
            on_tick=tick if title else None)
        if result.code:
            raise PipFailed(result)
        if title:
            say(f'{title}: done in {duration(time.monotonic() - start)}')

    def installed_version(self, name: str) -> str:
        """Returns the version under which pip knows an installed package."""
        found = next(self._site_packages().glob(f'{name}-*.dist-info'))
        return found.name[len(name) + 1:-len('.dist-info')]

    def remove_package(self, name: str, distribution: str = '') -> None:
        """Removes a package by its folders.

        pip's own uninstall refuses when an interrupted install has left the
        package without its list of files.

        Args:
            name: Name under which it is imported.
            distribution: Name under which pip knows it, if it is another.
        """
        known = (distribution or name).replace('-', '_')
        for pattern in (name, f'{known}-*.dist-info', f'~{name[1:]}*',
                        f'~{known[1:]}*'):
            for path in self._site_packages().glob(pattern):
                shutil.rmtree(path)

    def _site_packages(self) -> Path:
        version = '.'.join(map(str, PYTHON))
        return self.folder / 'lib' / f'python{version}' / 'site-packages'


def pip_activity(output: str) -> str:
    """Picks the last thing that pip said it is doing, without addresses."""
    doing = re.findall(
        r'^\s*(Collecting|Downloading|Using cached|Building wheel for|'
        r'Installing) (\S*)', output, re.M)
    if not doing:
        return ''
    what, target = doing[-1]
    if what == 'Installing':
        return '(unpacking)'
    return f'({what.lower()} {target.rsplit("/", 1)[-1]})'


def pip_fault(result: Result) -> str:
    """Words in one line why pip failed."""
    more = f'full output: {result.log}'
    if 'No space left on device' in result.output:
        return f'the disk ran full; free some space and run it again; {more}'
    sign = next((sign for sign in NETWORK_SIGNS if sign in result.output), '')
    if sign:
        return (f'no network: pip cannot reach its package index ({sign}); '
                'check the connection, and pip\'s index and proxy settings '
                f'(pip config list), then run it again; {more}')
    if '(from versions: none)' in result.output:
        # All there is to see of a failed connection where pip's configuration
        # rules out retries.
        return ('pip finds no release at all: no network, or an index without '
                'packages for this Python and machine; check both (pip config '
                f'list) and run it again; {more}')
    # What a package's own build says tells more than pip's account of it.
    errors = (
        re.findall(r'^\s*error: (?!subprocess-)(.+)$', result.output, re.M)
        or re.findall(r'^\s*ERROR: (.+)$', result.output, re.M)
        or [last_line(result)])
    return f'pip failed: {errors[-1]}; {more}'


def last_line(result: Result) -> str:
    """Returns the last line of a command's output, or its exit code."""
    lines = result.output.strip().splitlines()
    return lines[-1].strip() if lines else f'exit code {result.code}'
