"""The images that a prediction is made of: found, named and read."""
from __future__ import annotations

import glob
import io
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from shiftwise_mm.stack import import_optional

from .inputs import InputError

__all__ = ['FoundImage', 'SUFFIXES', 'UnreadableImage', 'find_images',
           'read_image']

SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff',
            '.webp', '.gif')
"""What is taken for an image in a folder."""


class UnreadableImage(ValueError):
    """A file cannot be read as an image; the message says why."""


@dataclass(frozen=True)
class FoundImage:
    """An image file.

    Attributes:
        path (Path): Where it lies.
        name (Path): Relative path without suffix, no two alike, by which the
            files made from it are called.
    """

    path: Path
    name: Path


def find_images(inputs: Sequence[str | os.PathLike],
                out: str | os.PathLike | None = None) -> list[FoundImage]:
    """The images that files, folders and patterns stand for.

    A folder stands for the images below it at any depth, hidden ones left
    out, in the order of their paths; a pattern, in which ``**`` matches any
    depth, for what it matches. A file that is named itself may have any
    suffix. Each image is taken once. Names are relative to the folder given,
    with several inputs to the deepest folder that holds all of them; images
    that differ in their suffixes alone keep it in the name, behind ``_``.

    Args:
        inputs (Sequence[str]): The files, folders and patterns.
        out (str, optional): Folder of results, whose images are left out.

    Raises:
        InputError: If an input does not exist, or stands for no image.
    """
    out = None if out is None else os.path.abspath(out)
    bases, files = [], {}
    for given in map(os.fspath, inputs):
        expanded = os.path.expanduser(given)
        # A file may be called a[1].jpg: what is there is no pattern.
        matches = [expanded] if os.path.exists(expanded) else sorted(
            glob.glob(expanded, recursive=True))
        if not matches:
            kind = 'matches nothing' if glob.has_magic(given) \
                else 'does not exist'
            raise InputError(f'input {given} {kind}')
        found = [path for match in matches for path in _images(match, out)]
        if not found:
            raise InputError(f'input {given} holds no images '
                             f'({", ".join(SUFFIXES)})')
        bases += [match if os.path.isdir(match) else os.path.dirname(match)
                  for match in map(os.path.abspath, matches)]
        files.update((os.path.abspath(path), Path(path)) for path in found)
    if not files:
        raise InputError('there is no input')
    base = os.path.commonpath(bases)
    names = {path: Path(os.path.relpath(path, base)) for path in files}
    stems = Counter(name.with_suffix('') for name in names.values())
    taken = {stem for stem, number in stems.items() if number == 1}
    found = []
    for path, name in names.items():
        stem = name.with_suffix('')
        if stem not in taken or stems[stem] > 1:
            stem = name.with_name(f'{name.stem}_{name.suffix[1:]}')
            while stem in taken:
                stem = stem.with_name(f'{stem.name}_')
            taken.add(stem)
        found.append(FoundImage(files[path], stem))
    return found


def _images(path: str, out: str | None) -> Iterator[str]:
    if not os.path.isdir(path):
        yield path
        return
    seen = set()
    for folder, folders, files in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen or os.path.abspath(folder) == out:
            folders.clear()  # a link back, or our own pictures
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders
                            if not name.startswith('.'))
        yield from (os.path.join(folder, name) for name in sorted(files)
                    if name.lower().endswith(SUFFIXES)
                    and not name.startswith('.'))


def read_image(path: str | os.PathLike, flag: str = 'color',
               backend: str | None = None) -> np.ndarray:
    """An image as mmcv loads it, or by Pillow where only that can.

    A file that ends too early is refused: OpenCV would fill the rest of it
    with grey without a word.

    Args:
        path (str): The file.
        flag (str): ``color_type`` of mmcv's ``LoadImageFromFile``. Defaults
            to ``'color'``: turned as its EXIF data say.
        backend (str, optional): Its ``imdecode_backend``.

    Returns:
        np.ndarray: uint8 (H, W, 3), blue first, for ``'color'``.

    Raises:
        UnreadableImage: If it is no image, or broken.
        OSError: If the file itself cannot be read.
    """
    mmcv = import_optional('mmcv', 'reading of images')
    content = Path(path).read_bytes()
    if not content:
        raise UnreadableImage('is empty (0 bytes)')
    known = _check(content)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            image = mmcv.imfrombytes(content, flag=flag, backend=backend)
        # OpenCV's and other backends' errors have no common type.
        except Exception as error:
            if not known:
                raise UnreadableImage(_reason(error)) from error
            image = None
        if image is None and known and flag.startswith('color'):
            image = _by_pillow(content, turn=flag == 'color')
    if image is None:
        raise UnreadableImage('is no image, or of an unknown format')
    return image


def _check(content: bytes) -> bool:
    """Whether Pillow knows the format; an error if the image is broken."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            image = Image.open(io.BytesIO(content))
        # Of unknown formats, of sizes that Pillow takes for an attack, and of
        # headers so broken that it raises what it likes: OpenCV may know.
        except Exception:
            return False
        with image:
            try:
                image.draft('RGB', (1, 1))  # an eighth of a JPEG: fast
                image.load()
            except Exception as error:  # SyntaxError for a PNG, and others
                raise UnreadableImage(f'is broken: {_reason(error)}') \
                    from error
    return True


def _by_pillow(content: bytes, turn: bool) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        if turn:
            image = ImageOps.exif_transpose(image)
        pixels = np.asarray(image.convert('RGB'))
    return np.ascontiguousarray(pixels[..., ::-1])


def _reason(error: Exception) -> str:
    return f'{type(error).__name__}: {" ".join(str(error).split())}'
