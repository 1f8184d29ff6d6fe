"""Checks a folder in the COCO format before a training starts on it.

Expected layout::

    annotations/train.json, annotations/val.json
    train/, val/                                   images

The rules are those of MMDetection and of the COCO metric: what either would
crash on, or quietly misread, is an error here; what they drop or tolerate is
counted in ``warnings``.
"""

from __future__ import annotations

import json
import os
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._coco_checks import (
    DataError,
    first_of,
    read_boxes,
    read_categories,
    read_images,
)
from ._coco_images import check_image_files

__all__ = ['CocoFolder', 'CocoSplit', 'DataError', 'read_coco_folder']

_KEYS = ('images', 'annotations', 'categories')
_LAYOUT = (
    'expected are annotations/train.json, annotations/val.json and the images '
    'in train/ and val/'
)


@dataclass(frozen=True)
class CocoSplit:
    """What one half of the data set holds.

    Attributes:
        ann_file: the annotation file.
        image_dir: the folder of the images.
        num_images: number of images, with those that have no box.
        num_boxes: number of boxes a detector is trained on or measured
            against: neither crowds nor those MMDetection drops.
        boxes_per_class: the same for each class, in the order of the classes.
        median_size: median (width, height) of the images in pixels.
        has_masks: True when every such box and every crowd has a mask.
        warnings: one line for each oddity that does not stop a training.
    """

    ann_file: Path
    image_dir: Path
    num_images: int
    num_boxes: int
    boxes_per_class: tuple[int, ...]
    median_size: tuple[float, float]
    has_masks: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class CocoFolder:
    """A checked data set.

    Attributes:
        root: its folder.
        classes: category names in the order of the annotation files, which
            is the order in which MMDetection numbers its labels.
        train: the training half.
        val: the validation half.
    """

    root: Path
    classes: tuple[str, ...]
    train: CocoSplit
    val: CocoSplit

    @property
    def has_masks(self) -> bool:
        """True when masks can be trained on and measured."""
        return self.train.has_masks and self.val.has_masks

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of both halves."""
        return self.train.warnings + self.val.warnings


def read_coco_folder(root: str | os.PathLike[str]) -> CocoFolder:
    """Check a data set and count what is in it.

    Both annotation files are read in full. Of the images only the headers
    are read: that each exists, is an image and has the size stated.

    Args:
        root: folder with ``annotations/``, ``train/`` and ``val/``.

    Returns:
        What the data set holds.

    Raises:
        DataError: the data set cannot be trained on or measured with. The
            message is one line that names the file, what is wrong, what is
            expected, and often the mend.
        TypeError: ``root`` is not a path.
    """
    root = Path(root)
    if not root.is_dir():
        state = 'is not a folder' if root.exists() else 'does not exist'
        raise DataError(f'{root} {state}; {_LAYOUT}')
    files = {s: root / 'annotations' / f'{s}.json' for s in ('train', 'val')}
    contents = {s: _load(file) for s, file in files.items()}
    categories = {
        s: read_categories(contents[s]['categories'], file)
        for s, file in files.items()
    }
    _compare_categories(categories, files)
    train, val = (
        _read_split(contents[s], file, root / s, categories[s])
        for s, file in files.items()
    )
    return CocoFolder(
        root=root,
        classes=tuple(categories['train'].values()),
        train=train,
        val=val,
    )


def _load(file: Path) -> dict[str, Any]:
    """The content of an annotation file, with the three lists present."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise DataError(f'{file} does not exist; {_LAYOUT}') from None
    except OSError as error:
        raise DataError(f'{file} cannot be read: {error.strerror}') from None
    if not content.strip():
        raise DataError(
            f'{file} is empty; a JSON object with {_quote(_KEYS)} is expected'
        )
    try:
        data = json.loads(content.decode('utf-8'))
    except json.JSONDecodeError as error:
        raise DataError(
            f'{file} is not valid JSON: {error.msg} at line {error.lineno}, '
            f'column {error.colno}; was it cut off or edited by hand?'
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(
            f'{file} is not valid JSON: byte {error.start} is not UTF-8; save '
            'it as UTF-8'
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f'{file} is not valid JSON: {error}') from None
    if not isinstance(data, dict):
        raise DataError(
            f'{file} holds a JSON {type(data).__name__}; an object with '
            f'{_quote(_KEYS)} is expected'
        )
    missing = [key for key in _KEYS if key not in data]
    if missing:
        raise DataError(
            f'{file} has no {_quote(missing)}; an object with {_quote(_KEYS)} '
            'is expected (is it another format, or a results file?)'
        )
    for key in _KEYS:
        if not isinstance(data[key], list) or not data[key]:
            raise DataError(
                f'{file} has no {key}: {key!r} must be a list of at least one '
                'object'
            )
    return data


def _compare_categories(
    categories: dict[str, dict[int, str]], files: dict[str, Path]
) -> None:
    train, val = (list(categories[s].items()) for s in ('train', 'val'))
    if train == val:
        return
    if sorted(train) == sorted(val):
        problem = 'lists the same categories in another order'
    elif len(train) != len(val):
        problem = f'has {len(val)} categories, not {len(train)}'
        odd = [c for c in train + val if (c in train) != (c in val)]
        problem += f', odd is id {odd[0][0]} {odd[0][1]!r}'
    else:
        odd = next(i for i, c in enumerate(train) if c != val[i])
        problem = (
            f'has id {val[odd][0]} {val[odd][1]!r} where id {train[odd][0]} '
            f'{train[odd][1]!r} is expected'
        )
    raise DataError(
        f"{files['val']}: its categories differ from those of "
        f"{files['train'].name}: it {problem}; both files must list the same "
        'ids and names in the same order, by which labels are numbered'
    )


def _read_split(
    data: dict[str, Any],
    file: Path,
    image_dir: Path,
    categories: dict[int, str],
) -> CocoSplit:
    images = read_images(data['images'], file)
    boxes = read_boxes(data['annotations'], file, images, categories)
    unused = [name for key, name in categories.items() if not boxes.count[key]]
    if unused:
        raise DataError(
            f'{file}: {first_of("category", unused)} without a usable box; '
            'every category needs boxes in train and in val: add some, or '
            'take it out of both files'
        )
    check_image_files(images, file, image_dir)
    warnings = list(boxes.warnings)
    if boxes.num_masked and boxes.num_maskless:
        warnings.append(
            f'{file}: {boxes.num_maskless} of '
            f'{boxes.num_masked + boxes.num_maskless} boxes have no valid '
            'segmentation; masks cannot be trained on'
        )
    return CocoSplit(
        ann_file=file,
        image_dir=image_dir,
        num_images=len(images),
        num_boxes=sum(boxes.count.values()),
        boxes_per_class=tuple(boxes.count[key] for key in categories),
        median_size=(
            float(statistics.median(i['width'] for i in images.values())),
            float(statistics.median(i['height'] for i in images.values())),
        ),
        has_masks=boxes.num_maskless == 0,
        warnings=tuple(warnings),
    )


def _quote(names: Any) -> str:
    return ', '.join(f'"{name}"' for name in names)
