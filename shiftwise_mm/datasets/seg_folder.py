"""Checks a folder of label maps before a segmentor is trained on it.

Expected layout, that of ADE20K::

    images/train/, images/val/             images
    annotations/train/, annotations/val/   their label maps, of the same names
    classes.txt                            names, one a line (may be absent)

A label map is an image of one channel that holds the class of each pixel,
from 0 on; 255 is not labelled. The rules are those of MMSegmentation: what it
would crash on, or quietly misread, is an error here; what it tolerates is
told in ``warnings``.
"""
from __future__ import annotations

import os
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ._coco_checks import DataError, first_of
from ._coco_images import read_size
from ._label_maps import IGNORED, count_labels

__all__ = ['SegFolder', 'SegSplit', 'read_seg_folder']

_SPLITS = ('train', 'val')
_IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
_MAPS = ('.png', '.bmp', '.tif', '.tiff')
_NAMES = 'classes.txt'


@dataclass(frozen=True)
class SegSplit:
    """What one half of the data set holds.

    Attributes:
        image_dir: the folder of the images.
        map_dir: the folder of the label maps.
        num_images: number of images.
        pixels: number of pixels of each class.
        median_size: median (width, height) of the images in pixels.
        warnings: one line for each oddity that does not stop a training.
    """

    image_dir: Path
    map_dir: Path
    num_images: int
    pixels: tuple[int, ...]
    median_size: tuple[float, float]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class SegFolder:
    """A checked data set.

    Attributes:
        root: its folder.
        classes: class names, by label.
        image_suffix: how the names of all images end.
        map_suffix: how the names of all label maps end.
        train: the training half.
        val: the validation half.
    """

    root: Path
    classes: tuple[str, ...]
    image_suffix: str
    map_suffix: str
    train: SegSplit
    val: SegSplit

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of both halves."""
        return self.train.warnings + self.val.warnings


def read_seg_folder(
    root: str | os.PathLike[str], *, images: str = 'images/{}',
    maps: str = 'annotations/{}', classes: tuple[str, ...] | None = None,
) -> SegFolder:
    """Checks a data set and counts what is in it.

    All label maps are read; of the images only the headers are.

    Args:
        root: folder of the data set.
        images: place of the images in it, ``{}`` standing for ``train`` and
            ``val``.
        maps: place of the label maps, likewise.
        classes: class names by label, instead of those of ``classes.txt``.
            Where there is neither, the labels are the names.

    Returns:
        What the data set holds.

    Raises:
        DataError: the data set cannot be trained on or measured with. The
            message is one line that names the file, what is wrong, what is
            expected, and often the mend.
        TypeError: ``root`` is not a path.
    """
    root = Path(root)
    layout = ('expected are the images in ' + ' and '.join(
        images.format(s) for s in _SPLITS) + ', and label maps of the same '
        'names in ' + ' and '.join(maps.format(s) for s in _SPLITS))
    if not root.is_dir():
        state = 'is not a folder' if root.exists() else 'does not exist'
        raise DataError(f'{root} {state}; {layout}')
    image_dirs, map_dirs = ({s: root / where.format(s) for s in _SPLITS}
                            for where in (images, maps))
    for folder in (*image_dirs.values(), *map_dirs.values()):
        if not folder.is_dir():
            raise DataError(f'{folder} is not there; {layout}')
    image_suffix = _suffix(image_dirs, _IMAGES, 'images')
    map_suffix = _suffix(map_dirs, _MAPS, 'label maps')
    if classes is None and (root / _NAMES).is_file():
        classes = _read_names(root / _NAMES)
    halves = {
        s: _read_split(image_dirs[s], map_dirs[s], image_suffix, map_suffix)
        for s in _SPLITS
    }
    counts = {s: pixels for s, (_, pixels) in halves.items()}
    classes = _check_labels(counts, classes, map_dirs)
    splits = {
        s: SegSplit(image_dirs[s], map_dirs[s], len(sizes),
                    tuple(pixels[:len(classes)].tolist()), tuple(
                        float(statistics.median(side))
                        for side in zip(*sizes, strict=True)),
                    _warnings(map_dirs[s], pixels, classes))
        for s, (sizes, pixels) in halves.items()
    }
    return SegFolder(root, classes, image_suffix, map_suffix, **splits)


def _files(folder: Path) -> list[str]:
    """Names of the files under a folder, as MMSegmentation finds them."""
    found = []
    for path, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith('.')]
        found += [os.path.relpath(os.path.join(path, name), folder)
                  for name in files if not name.startswith('.')]
    return sorted(found)


def _suffix(folders: dict[str, Path], known: tuple[str, ...],
            what: str) -> str:
    """The one suffix of the files in both folders."""
    first: dict[str, Path] = {}
    for folder in folders.values():
        suffixes = {}
        for name in _files(folder):
            suffix = Path(name).suffix
            if suffix.lower() in known:
                suffixes.setdefault(suffix, folder / name)
        if not suffixes:
            raise DataError(f'{folder} holds no {what} ({", ".join(known)})')
        first = {**suffixes, **first}
    if len(first) > 1:
        (one, file), (other, odd), *_ = first.items()
        raise DataError(
            f'{odd} ends in {other}, but {file} in {one}; MMSegmentation '
            f'finds {what} by one suffix, the same in train and val (upper '
            'and lower case differ): convert or rename them')
    return next(iter(first))


def _read_names(file: Path) -> tuple[str, ...]:
    try:
        lines = file.read_text(encoding='utf-8').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f'{file} cannot be read as UTF-8 text '
                        f'({type(error).__name__})') from None
    names = tuple(line.strip() for line in lines if line.strip())
    twice = [name for name in names if names.count(name) > 1]
    if twice or not names:
        what = f'lists {twice[0]!r} twice' if twice else 'is empty'
        raise DataError(f'{file} {what}; it must hold the name of each class, '
                        'one a line, in the order of the labels')
    return names


def _read_split(
    image_dir: Path, map_dir: Path, image_suffix: str, map_suffix: str,
) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Sizes of the images, and pixels of each of 256 labels."""
    names, maps = (
        [file.removesuffix(suffix) for file in _files(folder)
         if file.endswith(suffix)]
        for folder, suffix in ((image_dir, image_suffix),
                               (map_dir, map_suffix)))
    missing = [n + map_suffix for n in sorted(set(names) - set(maps))]
    if missing:
        raise DataError(
            f'{map_dir}: {first_of("label map", missing)} missing, of '
            f'{len(names)}; each image needs one of its own name')
    sizes, pixels = [], np.zeros(256, np.int64)
    for name in names:
        size = read_size(image_dir, name + image_suffix)
        pixels += count_labels(map_dir / (name + map_suffix), size)
        sizes.append(size)
    return sizes, pixels


def _check_labels(
    counts: dict[str, np.ndarray], classes: tuple[str, ...] | None,
    map_dirs: dict[str, Path],
) -> tuple[str, ...]:
    """The classes, given or from the labels that occur."""
    used = {s: np.flatnonzero(pixels[:IGNORED]).tolist()
            for s, pixels in counts.items()}
    for split, labels in used.items():
        if len(labels) < 2:
            raise DataError(
                f'{map_dirs[split]}: the label maps hold '
                f'{f"the label {labels[0]} alone" if labels else "no label"} '
                f'beside {IGNORED}, which is "not labelled"; at least two '
                'classes are expected (a mask of 0 and 255 must be written '
                'as 0 and 1)')
    largest = max(label for labels in used.values() for label in labels)
    if classes is None:
        both = set(used['train']) | set(used['val'])
        unused = [label for label in range(largest) if label not in both]
        if unused:
            raise DataError(
                f'{map_dirs["train"]}: labels up to {largest} occur, but '
                f'{first_of("label", unused)} in no label map; labels must '
                f'count from 0 without gaps, or {_NAMES} must name them all')
        return tuple(map(str, range(largest + 1)))
    if largest >= len(classes):
        split = next(s for s in _SPLITS if largest in used[s])
        raise DataError(
            f'{map_dirs[split]}: label {largest} occurs, but there are '
            f'{len(classes)} class names, for the labels 0 to '
            f'{len(classes) - 1}')
    return tuple(classes)


def _warnings(map_dir: Path, pixels: np.ndarray,
              classes: tuple[str, ...]) -> tuple[str, ...]:
    absent = [name for label, name in enumerate(classes)
              if not pixels[label]]
    if not absent:
        return ()
    return (f'{map_dir}: {first_of("class", absent)} in no label map', )
