"""What the set-up depends on, as digests, and the stamps that record them."""
from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from env_setup.process import SetupError

# What the installed package is made from, and what its build may read besides.
SOURCES = ('setup.py', 'pyproject.toml', 'setup.cfg', 'MANIFEST.in',
           'model-index.yml', 'shiftwise_mm', 'kernels', 'configs',
           'requirements')
READ_BY_BUILD = ('README.md', 'README_zh-CN.md', 'LICENSE')
# .mim is made by package builds, from configs/.
NOT_SOURCES = ('__pycache__', '*.pyc', '.mim', '*.egg-info')


def read_pins(path: Path) -> dict[str, str]:
    """Reads the ``name==version  # reason`` lines of a requirements file.

    Raises:
        SetupError: A line is something else.
    """
    pins = {}
    for line in path.read_text(encoding='utf-8').splitlines():
        line = line.partition('#')[0].strip()
        if line:
            name, _, version = line.partition('==')
            if not version:
                raise SetupError(f'{path}: not an exact pin: {line}')
            pins[name.strip()] = version.strip()
    return pins


def digest(*parts: str) -> str:
    """Hashes texts to a short name for stamps."""
    return hashlib.sha256('\0'.join(parts).encode()).hexdigest()[:24]


def source_files(root: Path,
                 names: Sequence[str] = SOURCES) -> Iterator[Path]:
    """Yields the existing files under the named files and folders."""
    for name in names:
        base = root / name
        for path in sorted(base.rglob('*')) if base.is_dir() else [base]:
            parts = path.relative_to(root).parts
            if path.is_file() and not any(
                    Path(part).match(pattern)
                    for part in parts for pattern in NOT_SOURCES):
                yield path


def source_digest(root: Path) -> str:
    """Hashes names and contents of the files that the package is made of."""
    return digest(*(
        f'{path.relative_to(root)} '
        f'{hashlib.sha256(path.read_bytes()).hexdigest()}'
        for path in source_files(root)))


class Stamps:
    """Small texts in a folder, each written in one step.

    Args:
        folder: Where they lie; it need not exist to read them.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def __getitem__(self, name: str) -> str:
        """Returns a stamp's text, empty if it is not set."""
        try:
            return (self.folder / name).read_text()
        except OSError:
            return ''

    def __setitem__(self, name: str, text: str) -> None:
        """Sets a stamp."""
        temporary = self.folder / f'.{name}.part'
        temporary.write_text(text)
        os.replace(temporary, self.folder / name)

    def __delitem__(self, name: str) -> None:
        """Removes a stamp, if it is set."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            (self.folder / name).unlink()
