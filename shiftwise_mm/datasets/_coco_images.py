"""Rules of `read_coco_folder` for the image files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from ._coco_checks import DataError, first_of

_EXIF_ORIENTATION = 0x0112
# Orientations 5 to 8 turn the image by a quarter, which swaps its sides.
_SWAPPING = (5, 6, 7, 8)


def check_image_files(
    images: dict[Any, dict[str, Any]], file: Path, folder: Path
) -> None:
    """Compare the images on disk with the annotation file, by header only.

    Raises:
        DataError: the folder or an image is missing, or an image is not
            readable or has another size than stated.
    """
    if not folder.is_dir():
        raise DataError(
            f'{folder} is not there; the images of {file.name} are expected '
            'in it'
        )
    names = [entry['file_name'] for entry in images.values()]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f'{folder}: {first_of("image", missing)} missing, of {len(names)} '
            f'in {file.name}; "file_name" must be relative to this folder'
        )
    for entry in images.values():
        found = read_size(folder, entry['file_name'])
        stated = (entry['width'], entry['height'])
        if found != stated:
            raise DataError(
                f'{folder}: image {entry["file_name"]!r} has '
                f'{found[0]}x{found[1]} pixels, but {file.name} states '
                f'{stated[0]}x{stated[1]}; correct the annotations, or use '
                'the images they were made for'
            )


def read_size(folder: Path, name: str) -> tuple[int, int]:
    """(width, height) as mmcv loads the image, that is after EXIF rotation.

    Raises:
        DataError: the image is not readable.
    """
    path = folder / name
    if path.stat().st_size == 0:
        raise DataError(f'{folder}: image {name!r} is empty (0 bytes)')
    try:
        with Image.open(path) as image:
            width, height = image.size
            orientation = None
            # Asked for in any other case, PNG files would be decoded.
            if 'exif' in image.info:
                orientation = image.getexif().get(_EXIF_ORIENTATION)
    # Pillow's readers raise errors of many types on broken headers.
    except Exception as error:
        raise DataError(
            f'{folder}: image {name!r} cannot be read as an image '
            f'({type(error).__name__}); replace it, or take it out of the '
            'data set'
        ) from None
    if orientation in _SWAPPING:
        return height, width
    return width, height
