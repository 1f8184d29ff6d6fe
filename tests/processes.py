"""Programs in processes of their own, without the time of their imports."""
from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

# The package installed, not the folder of its source.
_SAFE_PATH = ('-P', ) if sys.version_info >= (3, 11) else ()


@functools.cache
def _zygote() -> tuple[socket.socket, subprocess.Popen]:
    """Where to ask for processes; see zygote.py. It ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, *_SAFE_PATH,
             Path(__file__).with_name('zygote.py'), str(theirs.fileno())],
            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
            env={**os.environ, 'PYTHONPATH': ''})
    return ours, process


def run_fresh(*command, cwd: str | Path = '.',
              env: Mapping[str, str] | None = None,
              merge: bool = False,
              timeout: float = 600) -> subprocess.CompletedProcess:
    """Runs ``python -P COMMAND``; see :func:`run_forked`."""
    return subprocess.run(
        [sys.executable, *_SAFE_PATH, *map(str, command)], text=True, cwd=cwd,
        env=env, timeout=timeout, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if merge else subprocess.PIPE)


def run_forked(*command, cwd: str | Path = '.',
               env: Mapping[str, str] | None = None,
               merge: bool = False,
               timeout: float = 600) -> subprocess.CompletedProcess:
    """The same in a fork of a process that has imported torch and mmcv.

    In half the time. Each tool has a test by :func:`run_fresh` as well.

    Args:
        command: Path of the program, and its arguments.
        env: All of its environment; default: that of this process.
        merge: Whether stderr goes to stdout.
        timeout: Seconds after which it is killed.

    Raises:
        subprocess.TimeoutExpired: After that.
    """
    command = [str(part) for part in command]
    request = dict(command=command, cwd=os.path.abspath(cwd),
                   env=dict(os.environ if env is None else env))
    with tempfile.TemporaryFile('w+') as out, \
            tempfile.TemporaryFile('w+') as err:
        code = _wait(request, [out, out if merge else err], timeout)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(
            command, code, out.read(), None if merge else err.read())


def _wait(request: dict, output: list, timeout: float) -> int:
    """The exit code, negative for a signal, as subprocess has it."""
    ours, theirs = socket.socketpair()
    with ours, ours.makefile() as report:
        with theirs:
            socket.send_fds(_zygote()[0], [json.dumps(request).encode()],
                            [file.fileno() for file in (*output, theirs)])
        pid = int(report.readline())
        ours.settimeout(timeout)
        try:
            return int(report.readline())
        except BaseException as error:
            os.killpg(pid, signal.SIGKILL)
            if isinstance(error, TimeoutError):
                raise subprocess.TimeoutExpired(request['command'],
                                                timeout) from error
            raise
