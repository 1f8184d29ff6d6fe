"""Runs the probes in a process of their own, and goes on where one ends it."""
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .check import BROKEN, Check
from .mends import install

__all__ = ['run_probes']

_LIMIT = 300  # seconds; kernels may have to be compiled


def run_probes(names: Sequence[str]) -> list[Check]:
    """What the probes have found, in their order.

    One that ends its process, such as by an illegal instruction, or does not
    come to an end is found broken; those behind it run in another process.

    Args:
        names (Sequence[str]): Of :data:`.probes.PROBES`.
    """
    names, found = list(names), []
    with tempfile.TemporaryDirectory() as folder:
        while names:
            file = Path(folder, 'found.jsonl')
            file.write_text('')
            ending = _run(names, file)
            rows = [json.loads(line) for line in
                    file.read_text('utf-8').splitlines()]
            found += [Check(**row['check']) for row in rows if 'check' in row]
            done = [row['done'] for row in rows if 'done' in row]
            names = [name for name in names if name not in done]
            if names:
                name = names.pop(0)
                found.append(Check(name, BROKEN, ending, install(
                    'taichi' if name.startswith('operators') else name,
                    again=True)))
    return found


def _run(names: Sequence[str], file: Path) -> str:
    """How the process has ended, for one that ended too early."""
    # It imports from where this process does. A source tree in the current
    # folder would else come before the package that is installed.
    path = os.pathsep.join(map(os.path.abspath, sys.path))
    try:
        done = subprocess.run(
            [sys.executable, '-m', __package__, str(file), *names],
            cwd=file.parent,  # which holds no modules
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, timeout=_LIMIT, text=True,
            errors='replace',
            # The user's own threads may be many; the tests are small.
            env={'OMP_WAIT_POLICY': 'PASSIVE', **os.environ,
                 'PYTHONPATH': path})
    except subprocess.TimeoutExpired:
        return f'it did not end within {_LIMIT} seconds'
    last = next(iter(done.stderr.strip().splitlines()[-1:]), '')
    how = f'exit code {done.returncode}' if done.returncode >= 0 else \
        f'signal {signal.Signals(-done.returncode).name}'
    return f'it ended its process ({how}){last and f": {last}"}'
