"""The process of the probes: see :mod:`.process`."""
from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict

from .check import broken
from .probes import PROBES


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
