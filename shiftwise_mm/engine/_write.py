"""Files that appear whole or not at all."""
from __future__ import annotations

import os
from pathlib import Path


def write_whole(file: Path, text: str) -> None:
    """Writes a text file under a temporary name, then renames it.

    Raises:
        OSError: If it cannot be written.
    """
    part = file.with_name(f'.{os.getpid()}.{file.name}')
    try:
        part.write_text(text, 'utf-8')
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
