"""Runs the probes in a process of their own, and goes on where one ends it."""
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from .check import BROKEN, Check, broken
from .mends import install
from .probes import PROBES

__all__ = ['main', 'run_probes']

_LIMIT = 300  # seconds; kernels may have to be compiled


def run_probes(names: Sequence[str] = tuple(PROBES)) -> list[Check]:
    """What the probes have found, in their order.

    One that ends its process, such as by an illegal instruction, or does not
    come to an end is found broken; those behind it run in another process.

    Args:
        names (Sequence[str]): Of :data:`.probes.PROBES`. Defaults to all.
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
                    name if name != 'operators' else 'taichi', again=True)))
    return found


def _run(names: Sequence[str], file: Path) -> str:
    """How the process has ended, for one that ended too early."""
    isolated = ['-P'] if getattr(sys.flags, 'safe_path', False) else []
    try:
        done = subprocess.run(
            [sys.executable, *isolated, '-m', __name__, str(file), *names],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, timeout=_LIMIT, text=True,
            errors='replace',
            # The user's own threads may be many; the tests are small.
            env={'OMP_WAIT_POLICY': 'PASSIVE', **os.environ})
    except subprocess.TimeoutExpired:
        return f'it did not end within {_LIMIT} seconds'
    last = next(iter(done.stderr.strip().splitlines()[-1:]), '')
    how = f'exit code {done.returncode}' if done.returncode >= 0 else \
        f'signal {signal.Signals(-done.returncode).name}'
    return f'it ended its process ({how}){last and f": {last}"}'


def main(argv: Sequence[str]) -> None:
    """Runs probes and writes each finding, a line of JSON, to a file.

    Args:
        argv (Sequence[str]): The file, and names of probes.
    """
    path, *names = argv
    with open(path, 'a', encoding='utf-8') as file:

        def write(row: dict) -> None:
            file.write(json.dumps(row) + '\n')
            file.flush()  # what follows may end the process

        for name in names:
            try:
                for check in PROBES[name]():
                    write(dict(check=asdict(check)))
            # Nothing that a probe meets hides what the others find.
            except Exception as error:
                write(dict(check=asdict(broken(name, error, name))))
            write(dict(done=name))


if __name__ == '__main__':
    warnings.simplefilter('ignore')
    main(sys.argv[1:])
