"""Generates a small COCO data set of shapes with boxes and masks.

Layout under the root::

    annotations/train.json, annotations/val.json   COCO instances
    train/000001.jpg ..., val/000001.jpg ...       images
    semantic/train/000001.png ..., semantic/val/   0 background, else the
                                                   category id
    dataset.json                                   how it was made

Boxes, areas and masks describe the **visible** part of a shape: what lies
inside the image and is not covered by a shape drawn later. At least three
quarters of every shape are visible. Masks are compressed run lengths (RLE),
since a ring has a hole and a covered shape may fall into pieces; box and area
are computed from the mask, so that the three agree exactly.
"""

from __future__ import annotations

import hashlib
import json
import operator
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ._shapes_scene import SHAPE_CLASSES
from ._shapes_split import image_files, write_split

# Raised whenever the same arguments give other images or annotations.
GENERATOR_VERSION = 1

_GENERATOR = 'shiftwise_mm shapes'
_STAMP = 'dataset.json'
_SPLITS = ('train', 'val')
_MIN_SIDE, _MAX_SIDE = 64, 4096


@dataclass(frozen=True)
class ShapesSummary:
    """Where the data set is and what is in it.

    Attributes:
        root: its folder.
        classes: category names; category ids count from 1 in this order.
        num_train: number of training images.
        num_val: number of validation images.
        reused: True when it was there already and nothing was written.
    """

    root: Path
    classes: tuple[str, ...]
    num_train: int
    num_val: int
    reused: bool


def make_shapes_dataset(
    root: str | os.PathLike[str],
    *,
    num_train: int = 240,
    num_val: int = 60,
    image_size: tuple[int, int] = (256, 192),
    seed: int = 0,
) -> ShapesSummary:
    """Make the shapes data set, or find the one made before.

    Image ``i`` of a split depends on the seed, the split, ``i`` and the image
    size alone. The same arguments give the same bytes with the same versions
    of NumPy and OpenCV; no global random state is read or changed. All files
    are written to a hidden folder beside ``root``, which is renamed at the
    end: ``root`` is never seen half-written.

    Args:
        root: folder to make. It may exist if it is empty or holds the same
            data set already; missing parents are made.
        num_train: number of training images, at least 4, so that every class
            occurs.
        num_val: number of validation images, at least 4.
        image_size: (width, height) in pixels, each 64 to 4096.
        seed: any integer from 0 on.

    Returns:
        The folder and what is in it.

    Raises:
        TypeError: an argument is of a wrong type.
        ValueError: an argument is out of range.
        FileExistsError: ``root`` holds something else, the same data set
            with other arguments, or a data set changed since it was made.
        OSError: a file cannot be written.
    """
    if not isinstance(root, (str, os.PathLike)):
        raise TypeError(
            f'root must be a path, but {type(root).__name__} was given'
        )
    width, height = _check_size(image_size)
    arguments = {
        'num_train': _check_int('num_train', num_train, len(SHAPE_CLASSES)),
        'num_val': _check_int('num_val', num_val, len(SHAPE_CLASSES)),
        'image_size': [width, height],
        'seed': _check_int('seed', seed, 0),
    }
    root = Path(os.path.abspath(root))
    reused = _is_made(root, arguments)
    if not reused:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f'.{root.name}-', dir=root.parent
        ) as scratch:
            # A folder of its own inside the temporary one, which only its
            # owner may read: the finished data set gets the usual rights.
            stage = Path(scratch) / 'dataset'
            _write_all(stage, arguments)
            reused = _move(stage, root, arguments)
    return ShapesSummary(
        root=root,
        classes=SHAPE_CLASSES,
        num_train=arguments['num_train'],
        num_val=arguments['num_val'],
        reused=reused,
    )


def _check_int(name: str, value: Any, minimum: int) -> int:
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(
            f'{name} must be an integer, but {value!r} was given'
        ) from None
    if number < minimum:
        raise ValueError(
            f'{name} must be at least {minimum}, but {value!r} was given'
        )
    return number


def _check_size(image_size: Any) -> tuple[int, int]:
    if not isinstance(image_size, (tuple, list)) or len(image_size) != 2:
        raise TypeError(
            'image_size must be a pair (width, height), but '
            f'{image_size!r} was given'
        )
    width, height = (
        _check_int(f'image_size[{i}]', value, _MIN_SIDE)
        for i, value in enumerate(image_size)
    )
    if max(width, height) > _MAX_SIDE:
        raise ValueError(
            f'image_size must be at most {_MAX_SIDE} pixels a side, but '
            f'{image_size!r} was given'
        )
    return width, height


def _is_made(root: Path, arguments: dict[str, Any]) -> bool:
    """Whether `root` holds this very data set; raises if it is occupied."""
    if not os.path.lexists(root):
        return False
    if not root.is_dir():
        raise FileExistsError(
            f'{root} is not a folder: choose another root for the data set'
        )
    if not any(root.iterdir()):
        return False
    try:
        stamp = json.loads((root / _STAMP).read_text(encoding='utf-8'))
        made_here = stamp['generator'] == _GENERATOR
    except (OSError, ValueError, TypeError, KeyError):
        made_here = False
    if not made_here:
        raise FileExistsError(
            f'{root} holds something other than the shapes data set: choose '
            'an empty or a new folder as root'
        )
    wanted = {'version': GENERATOR_VERSION, 'arguments': arguments}
    found = {key: stamp.get(key) for key in wanted}
    if found != wanted:
        raise FileExistsError(
            f'{root} holds the shapes data set made with {found}, but '
            f'{wanted} is asked for: choose another root or delete the folder'
        )
    damaged = _first_damage(root, arguments, stamp.get('sha256'))
    if damaged is not None:
        raise FileExistsError(
            f'{root} holds the shapes data set, but {damaged} is missing or '
            'was changed: choose another root or delete the folder'
        )
    return True


def _first_damage(
    root: Path, arguments: dict[str, Any], sha256: Any
) -> str | None:
    for split in _SPLITS:
        name = f'annotations/{split}.json'
        try:
            if _sha256((root / name).read_bytes()) != sha256[split]:
                return name
        except (OSError, TypeError, KeyError):
            return name
        for index in range(arguments[f'num_{split}']):
            for name in image_files(split, index):
                try:
                    size = (root / name).stat().st_size
                except OSError:
                    size = 0
                if size == 0:
                    return name
    return None


def _move(stage: Path, root: Path, arguments: dict[str, Any]) -> bool:
    """Rename `stage` to `root`; True if another process was faster."""
    try:
        if os.name == 'nt' and root.is_dir():
            # Windows does not rename onto an empty folder. rmdir takes none
            # but empty ones.
            root.rmdir()
        os.rename(stage, root)
    except OSError:
        # Two processes of one training may both have begun to write.
        if _is_made(root, arguments):
            return True
        raise
    return False


def _write_all(stage: Path, arguments: dict[str, Any]) -> None:
    (stage / 'annotations').mkdir(parents=True)
    sha256 = {}
    for stream, split in enumerate(_SPLITS):
        coco = write_split(
            stage,
            split,
            num_images=arguments[f'num_{split}'],
            image_size=tuple(arguments['image_size']),
            seed=[arguments['seed'], stream],
        )
        content = _dump(coco)
        (stage / 'annotations' / f'{split}.json').write_bytes(content)
        sha256[split] = _sha256(content)
    stamp = {
        'generator': _GENERATOR,
        'version': GENERATOR_VERSION,
        'arguments': arguments,
        'sha256': sha256,
    }
    (stage / _STAMP).write_bytes(_dump(stamp))


def _dump(content: Any) -> bytes:
    return (json.dumps(content, separators=(',', ':')) + '\n').encode('utf-8')


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
