"""Running commands for the set-up: live lines, a full log, no orphans."""
from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

TICK_SECONDS = 15.0
# Standard input of commands. It is what their own children inherit as well, so
# the lock's file goes here; it is open at its end and reads as empty.
_stdin = subprocess.DEVNULL


class SetupError(Exception):
    """A fault that the user can mend; its text is the one line shown."""


class Result(NamedTuple):
    """How a command ended: its exit code, its output, the log with both."""

    code: int
    output: str
    log: Path


def say(text: str) -> None:
    """Prints a line on stderr, so that stdout is left to what comes after."""
    print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Formats seconds, e.g. 70 as ``1m10s``."""
    minutes, rest = divmod(int(seconds), 60)
    return f'{minutes}m{rest:02d}s' if minutes else f'{rest}s'


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock of a file, waiting for another set-up that has it.

    Commands run meanwhile hold it too: if the set-up is killed, the next one
    waits for what it left running.
    """
    global _stdin
    with open(path, 'a+') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            say('setup: waiting for another set-up of this folder (process '
                f'{file.read().strip() or "unknown"})')
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f'{os.getpid()}\n')
        file.flush()
        _stdin = file
        try:
            yield
        finally:
            _stdin = subprocess.DEVNULL


def run_logged(command: list[str],
               log: Path,
               env: dict[str, str],
               cwd: Path | None = None,
               on_tick: Callable[[str, float], None] | None = None) -> Result:
    """Runs a command with an empty standard input, its output going to a log.

    Args:
        command: The program and its arguments.
        log: File for stdout and stderr together, overwritten.
        env: The whole environment of the command.
        cwd: Folder to run in.
        on_tick: Called every ``TICK_SECONDS`` with the output so far and the
            seconds since the start.

    Returns:
        The result. A command ended by signal n has the code -n.

    Raises:
        KeyboardInterrupt: Passed on after the command and its children have
            been ended.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    # A session of its own lets an interrupt end the whole family at once.
    process = subprocess.Popen(
        command, cwd=cwd, env=env, stdin=_stdin,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True, preexec_fn=_die_with_parent)
    output = bytearray()
    try:
        with open(log, 'wb') as file:
            file.write(f'$ {" ".join(command)}\n'.encode())
            _drain(process, file, output, on_tick)
        code = process.wait()
    except BaseException:
        _end(process)
        raise
    return Result(code, output.decode(errors='replace'), log)


def _drain(process, file, output, on_tick) -> None:
    """Copies the command's output to the log until it ends."""
    fd = process.stdout.fileno()
    start = time.monotonic()
    due = start + TICK_SECONDS
    while True:
        if select.select([fd], [], [], max(0.0, due - time.monotonic()))[0]:
            chunk = os.read(fd, 1 << 16)
            if not chunk:
                return
            file.write(chunk)
            file.flush()
            output += chunk
        now = time.monotonic()
        if now >= due:
            due = now + TICK_SECONDS
            if on_tick:
                on_tick(output.decode(errors='replace'), now - start)


def _die_with_parent() -> None:
    """Asks Linux to kill this child when the set-up itself is killed.

    Otherwise a pip left over from a set-up ended by ``kill -9`` would go on
    writing into the folder that the next set-up mends.
    """
    if sys.platform == 'linux':
        set_death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def _end(process) -> None:
    """Ends a command and what it started: politely, then for good."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        # Time between the two, for ninja to end the compilers it started.
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                return
            process.poll()
            number = 0  # from here on only ask whether any is left
            time.sleep(0.05)
