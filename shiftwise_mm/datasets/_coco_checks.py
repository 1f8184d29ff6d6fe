"""Rules of `read_coco_folder` for the lists of an annotation file."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Beyond this a coordinate is a mistake, and sums would leave float's range.
_LARGEST = 1e9


class DataError(ValueError):
    """A data set is not what it has to be; the message is one line."""


@dataclass(frozen=True)
class Boxes:
    """Counts over the boxes that are used in training.

    Attributes:
        count: category id to number of boxes, crowds not counted.
        num_masked: how many boxes and crowds have a mask.
        num_maskless: how many boxes and crowds have none.
        warnings: one line for each oddity.
    """

    count: dict[int, int]
    num_masked: int
    num_maskless: int
    warnings: tuple[str, ...]


def first_of(what: str, items: Collection[Any]) -> str:
    """Name the first item, and how many there are if there are more."""
    first = f'{what} {next(iter(items))!r}'
    if len(items) == 1:
        return f'{first} is'
    return f'{first} and {len(items) - 1} more are'


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    number = _is_int(value) or isinstance(value, float)
    return number and -_LARGEST < value < _LARGEST


def _is_size(value: Any) -> bool:
    return _is_int(value) and 0 < value < _LARGEST


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_flag(value: Any) -> bool:
    # True and False compare equal to 1 and 0, and work as well.
    return value in (0, 1)


def _is_image_id(value: Any) -> bool:
    return _is_int(value) or _is_name(value)


def _is_box(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 4
        and all(_is_number(v) for v in value)
        and min(value[2:]) > 0
    )


def _is_mask(value: Any, image: dict[str, Any]) -> bool:
    """Whether MMDetection can make a mask of a segmentation."""
    if isinstance(value, dict):
        return (
            isinstance(value.get('counts'), (str, list))
            and value.get('size') == [image['height'], image['width']]
        )
    return isinstance(value, list) and any(
        isinstance(polygon, list)
        and len(polygon) >= 6
        and len(polygon) % 2 == 0
        and all(_is_number(v) for v in polygon)
        for polygon in value
    )


_Field = tuple[str, Callable[[Any], bool], str]

_CATEGORY_FIELDS: tuple[_Field, ...] = (
    ('id', _is_int, 'an integer'),
    ('name', _is_name, 'a name that is not empty'),
)
_IMAGE_FIELDS: tuple[_Field, ...] = (
    ('id', _is_image_id, 'an integer (or a name)'),
    ('file_name', _is_name, 'a file name that is not empty'),
    ('width', _is_size, 'a positive number of pixels'),
    ('height', _is_size, 'a positive number of pixels'),
)
_ANNOTATION_FIELDS: tuple[_Field, ...] = (
    ('id', _is_int, 'an integer'),
    ('image_id', _is_image_id, 'the id of an image'),
    ('category_id', _is_int, 'the id of a category'),
    (
        'bbox',
        _is_box,
        'four finite numbers x, y, width, height in pixels, width and height '
        'positive',
    ),
    ('area', _is_number, 'a finite number of square pixels'),
    ('iscrowd', _is_flag, '0, or 1 for a crowd'),
)


def _check_entry(
    entry: Any, fields: tuple[_Field, ...], what: str, index: int, file: Path
) -> None:
    """Raise unless `entry` is an object with valid `fields`."""
    where = f'{file}: {what} number {index}'
    if not isinstance(entry, dict):
        raise DataError(f'{where} is {_short(entry)}; an object is expected')
    for key, is_valid, expected in fields:
        if 'id' in entry and key != 'id':
            where = f'{file}: {what} with id {_short(entry["id"])}'
        if key not in entry:
            raise DataError(f'{where} has no {key!r}; it must be {expected}')
        if not is_valid(entry[key]):
            raise DataError(
                f'{where} has {key!r} {_short(entry[key])}; it must be '
                f'{expected}'
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:57]}...'


def _check_new(
    value: Any, seen: Collection[Any], what: str, file: Path
) -> None:
    if value in seen:
        raise DataError(
            f'{file}: {what} {_short(value)} occurs more than once; each must '
            'be unique'
        )


def read_categories(entries: list[Any], file: Path) -> dict[int, str]:
    """Category id to name, in the order of the file.

    Raises:
        DataError: an entry is malformed, or an id or a name occurs twice.
    """
    categories: dict[int, str] = {}
    for index, entry in enumerate(entries):
        _check_entry(entry, _CATEGORY_FIELDS, 'category', index, file)
        _check_new(entry['id'], categories, 'category id', file)
        _check_new(entry['name'], categories.values(), 'category name', file)
        categories[entry['id']] = entry['name']
    return categories


def read_images(entries: list[Any], file: Path) -> dict[Any, dict[str, Any]]:
    """Image id to entry.

    Raises:
        DataError: an entry is malformed, or an id occurs twice.
    """
    images: dict[Any, dict[str, Any]] = {}
    for index, entry in enumerate(entries):
        _check_entry(entry, _IMAGE_FIELDS, 'image', index, file)
        _check_new(entry['id'], images, 'image id', file)
        images[entry['id']] = entry
    return images


def read_boxes(
    entries: list[Any],
    file: Path,
    images: dict[Any, dict[str, Any]],
    categories: dict[int, str],
) -> Boxes:
    """Count the boxes that MMDetection trains on.

    Raises:
        DataError: an entry is malformed, refers to an image or category that
            is not in the file, or has the id of another one.
    """
    count = dict.fromkeys(categories, 0)
    num_masked = num_maskless = 0
    seen: set[int] = set()
    dropped, beyond = [], []
    for index, entry in enumerate(entries):
        _check_entry(entry, _ANNOTATION_FIELDS, 'annotation', index, file)
        _check_new(entry['id'], seen, 'annotation id', file)
        seen.add(entry['id'])
        for key, known in (('image_id', images), ('category_id', categories)):
            if entry[key] not in known:
                raise DataError(
                    f'{file}: annotation with id {entry["id"]} has {key!r} '
                    f'{_short(entry[key])}, which no entry of '
                    f'"{"images" if known is images else "categories"}" has'
                )
        image = images[entry['image_id']]
        if _is_dropped(entry, image):
            dropped.append(entry['id'])
            continue
        if _reaches_beyond(entry['bbox'], image):
            beyond.append(entry['id'])
        if not entry['iscrowd']:
            count[entry['category_id']] += 1
        # MMDetection loads the masks of crowds too, and fails without.
        if _is_mask(entry.get('segmentation'), image):
            num_masked += 1
        else:
            num_maskless += 1
    warnings = []
    if dropped:
        warnings.append(
            f'{file}: {first_of("annotation", dropped)} dropped by '
            'MMDetection: under one pixel wide or high, without area, outside '
            'the image, or marked "ignore"'
        )
    if beyond:
        warnings.append(
            f'{file}: {first_of("annotation", beyond)} more than a pixel '
            'beyond the image; are the boxes x, y, width, height in pixels?'
        )
    if 0 in seen:
        warnings.append(
            f'{file}: annotation 0 never counts as found, since the COCO '
            'metric takes the id 0 for "no match"; number from 1'
        )
    return Boxes(count, num_masked, num_maskless, tuple(warnings))


def _is_dropped(entry: dict[str, Any], image: dict[str, Any]) -> bool:
    """The rule of MMDetection's ``CocoDataset.parse_data_info``."""
    x, y, width, height = entry['bbox']
    return bool(
        entry.get('ignore')
        or min(x + width, image['width']) <= max(x, 0)
        or min(y + height, image['height']) <= max(y, 0)
        or min(width, height) < 1
        or entry['area'] <= 0
    )


def _reaches_beyond(bbox: list[float], image: dict[str, Any]) -> bool:
    x, y, width, height = bbox
    return (
        min(x, y) < -1
        or x + width > image['width'] + 1
        or y + height > image['height'] + 1
    )
