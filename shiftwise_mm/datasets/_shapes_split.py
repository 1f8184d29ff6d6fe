"""Writes the images of one split of the shapes data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from shiftwise_mm.stack import import_optional

from ._shapes_scene import SHAPE_CLASSES, Scene, draw_scene


def image_files(split: str, index: int) -> tuple[str, str]:
    """Names of an image and of its class map, relative to the root."""
    stem = f'{index + 1:06d}'
    return f'{split}/{stem}.jpg', f'semantic/{split}/{stem}.png'


def write_split(
    root: Path,
    split: str,
    *,
    num_images: int,
    image_size: tuple[int, int],
    seed: list[int],
) -> dict[str, list[dict[str, Any]]]:
    """Write the images and class maps of a split.

    Args:
        root: existing folder of the data set.
        split: name of the split, which is also that of its folder.
        num_images: how many images to write.
        image_size: (width, height) in pixels.
        seed: image ``i`` is drawn with the generator seeded by ``(*seed,
            i)``, so it does not depend on the number of images.

    Returns:
        The COCO annotations of the split.

    Raises:
        OSError: a file cannot be written.
    """
    (root / split).mkdir()
    (root / 'semantic' / split).mkdir(parents=True)
    width, height = image_size
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(num_images):
        rng = np.random.default_rng([*seed, index])
        # Classes take turns as the first shape, so none is ever absent.
        scene = draw_scene(rng, width, height, index % len(SHAPE_CLASSES))
        image_id = index + 1
        image_file, map_file = image_files(split, index)
        _write_image(
            root / image_file, scene.image, [cv2.IMWRITE_JPEG_QUALITY, 92]
        )
        category_of = np.array([0, *(k + 1 for k in scene.labels)], np.uint8)
        _write_image(root / map_file, category_of[scene.owner], [])
        images.append({
            'id': image_id,
            'file_name': Path(image_file).name,
            'width': width,
            'height': height,
        })
        annotations.extend(_annotate(scene, image_id, len(annotations) + 1))
    categories = [
        {'id': i, 'name': name} for i, name in enumerate(SHAPE_CLASSES, 1)
    ]
    return {
        'images': images,
        'annotations': annotations,
        'categories': categories,
    }


def _annotate(
    scene: Scene, image_id: int, first_id: int
) -> list[dict[str, Any]]:
    mask_util = import_optional('pycocotools.mask', 'a data set of shapes')
    annotations = []
    for offset, label in enumerate(scene.labels):
        mask = (scene.owner == offset + 1).astype(np.uint8)
        rle = mask_util.encode(np.asfortranarray(mask))
        annotations.append({
            'id': first_id + offset,
            'image_id': image_id,
            'category_id': label + 1,
            'bbox': [float(v) for v in mask_util.toBbox(rle)],
            'area': float(mask_util.area(rle)),
            'iscrowd': 0,
            'segmentation': {
                'size': [int(v) for v in rle['size']],
                'counts': rle['counts'].decode('ascii'),
            },
        })
    return annotations


def _write_image(path: Path, image: np.ndarray, options: list[int]) -> None:
    if not cv2.imwrite(str(path), image, options):
        raise OSError(f'{path} cannot be written')
