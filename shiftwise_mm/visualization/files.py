"""Files that appear whole or not at all."""
from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

__all__ = ['save_figure', 'whole_file']


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a hidden name beside ``path``, renamed to it at the end.

    The name has the suffix of ``path``, by which writers of pictures choose
    the format. After an error nothing is left, and an earlier file stays.

    Args:
        path (str): The file to write; its folder must exist.

    Raises:
        OSError: If the file cannot be renamed.
    """
    path = Path(path)
    part = path.with_name(f'.{os.getpid()}.{path.name}')
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def save_figure(figure: Figure, path: str | os.PathLike,
                dpi: int = 110) -> None:
    """Writes a figure, in the format of the suffix: png, svg, pdf, ...

    The same figure gives the same bytes: no date is written into it.

    Args:
        figure (Figure): Of matplotlib.
        path (str): The file; its folder must exist.
        dpi (int): Dots an inch. Defaults to 110.

    Raises:
        OSError: If it cannot be written.
        ValueError: If matplotlib does not know the suffix.
    """
    suffix = Path(path).suffix.lower()
    dated = {'.svg': 'Date', '.pdf': 'CreationDate'}.get(suffix)
    with whole_file(path) as part, \
            matplotlib.rc_context({'svg.hashsalt': 'shiftwise_mm'}):
        figure.savefig(part, dpi=dpi,
                       metadata={dated: None} if dated else None)
