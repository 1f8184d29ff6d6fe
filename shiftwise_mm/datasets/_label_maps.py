"""Rules of `read_seg_folder` for one label map."""
from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ._coco_checks import DataError

IGNORED = 255  # pixels of this label are neither trained on nor measured

# One channel: bilevel, grey, palette (whose indices are read), 16 or 32 bits.
_MODES = ('1', 'L', 'P', 'I', 'I;16', 'I;16B', 'I;16L')


def count_labels(file: Path, size: tuple[int, int]) -> np.ndarray:
    """Number of pixels of each label in a map.

    Args:
        file: the label map.
        size: (width, height) of its image in pixels.

    Returns:
        256 integers (int64).

    Raises:
        DataError: the map is not readable, has another size or more than one
            channel, or a label is out of 0..255.
    """
    try:
        with Image.open(file) as image:
            mode = image.mode
            # As MMSegmentation reads it: Pillow, without regard to EXIF.
            labels = np.asarray(image)
    # Pillow's readers raise errors of many types on broken files.
    except Exception as error:
        raise DataError(f'{file} cannot be read as an image '
                        f'({type(error).__name__})') from None
    if mode not in _MODES:
        raise DataError(
            f'{file} has the colour mode {mode}; a label map has one channel, '
            'with the class of each pixel from 0 on')
    if labels.shape[::-1] != size:
        raise DataError(
            f'{file} has {labels.shape[1]}x{labels.shape[0]} pixels, but its '
            f'image has {size[0]}x{size[1]}')
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > IGNORED:
        raise DataError(
            f'{file} holds the label {high if high > IGNORED else low}; '
            f'labels are 0 to {IGNORED - 1}, and {IGNORED} is "not labelled"')
    return np.bincount(labels.ravel().astype(np.uint8), minlength=256)
