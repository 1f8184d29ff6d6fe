import hashlib
import json
import random
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

from shiftwise_mm.datasets import (
    SHAPE_CLASSES,
    make_shapes_dataset,
    read_coco_folder,
)


def _digests(root):
    return {
        str(path.relative_to(root)): hashlib.md5(path.read_bytes()).digest()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


def _load(root, split):
    return json.loads((root / 'annotations' / f'{split}.json').read_text())


def test_layout_and_summary(tmp_path, small):
    summary = make_shapes_dataset(tmp_path / 'a' / 'b', **small)
    assert summary.root == tmp_path / 'a' / 'b'
    assert summary.classes == SHAPE_CLASSES
    assert (summary.num_train, summary.num_val) == (6, 5)
    assert not summary.reused
    found = sorted(_digests(summary.root))
    expected = ['annotations/train.json', 'annotations/val.json',
                'dataset.json']
    for split, count in (('train', 6), ('val', 5)):
        for i in range(1, count + 1):
            expected.append(f'{split}/{i:06d}.jpg')
            expected.append(f'semantic/{split}/{i:06d}.png')
    assert found == sorted(expected)
    # Others may read the folder, unlike a bare temporary one.
    plain = tmp_path / 'plain'
    plain.mkdir()
    assert summary.root.stat().st_mode == plain.stat().st_mode


def test_passes_the_folder_check(made):
    folder = read_coco_folder(made)
    assert folder.classes == SHAPE_CLASSES
    assert folder.has_masks
    assert folder.warnings == ()
    assert (folder.train.num_images, folder.val.num_images) == (6, 5)
    assert folder.train.median_size == (96, 64)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_box_area_and_mask_agree(made, split):
    coco = _load(made, split)
    assert [c['id'] for c in coco['categories']] == [1, 2, 3, 4]
    ids = [a['id'] for a in coco['annotations']]
    assert ids == list(range(1, len(ids) + 1))
    for annotation in coco['annotations']:
        mask = mask_util.decode(annotation['segmentation'])
        assert mask.shape == (64, 96)
        rows, columns = np.nonzero(mask)
        x, y = columns.min(), rows.min()
        width, height = columns.max() - x + 1, rows.max() - y + 1
        assert annotation['bbox'] == [x, y, width, height]
        assert annotation['area'] == len(rows)
        assert annotation['iscrowd'] == 0


@pytest.mark.parametrize('split', ['train', 'val'])
def test_masks_are_disjoint_and_make_up_the_class_map(made, split):
    coco = _load(made, split)
    for image in coco['images']:
        stem = Path(image['file_name']).stem
        class_map = cv2.imread(
            str(made / 'semantic' / split / f'{stem}.png'),
            cv2.IMREAD_UNCHANGED,
        )
        total = np.zeros((64, 96), int)
        covered = np.zeros((64, 96), int)
        for annotation in coco['annotations']:
            if annotation['image_id'] == image['id']:
                mask = mask_util.decode(annotation['segmentation'])
                total += mask * annotation['category_id']
                covered += mask
        assert covered.max() == 1
        np.testing.assert_array_equal(class_map, total)


@pytest.fixture(scope='module')
def larger(tmp_path_factory):
    """A data set of the default size with enough shapes for statistics."""
    root = tmp_path_factory.mktemp('larger') / 'shapes'
    make_shapes_dataset(root, num_train=60, num_val=5)
    return root


def test_shapes_are_what_they_are_called(larger):
    names = ('of circle', 'of hull', 'holes')
    measured = {label: [] for label in SHAPE_CLASSES}
    for annotation in _load(larger, 'train')['annotations']:
        mask = mask_util.decode(annotation['segmentation'])
        contours, hierarchy = cv2.findContours(
            mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
        )
        points = np.concatenate(contours)
        _, radius = cv2.minEnclosingCircle(points)
        circle = np.pi * (radius + 0.5) ** 2
        hull = cv2.contourArea(cv2.convexHull(points))
        holes = (hierarchy[0, :, 3] >= 0).sum()
        measured[SHAPE_CLASSES[annotation['category_id'] - 1]].append(
            (annotation['area'] / circle, annotation['area'] / hull, holes)
        )
    # Medians, since some shapes are partly hidden.
    median = {
        label: dict(zip(names, np.median(values, axis=0), strict=True))
        for label, values in measured.items()
    }
    assert median['circle']['of circle'] > 0.93
    assert 0.57 < median['square']['of circle'] < 0.67
    assert 0.35 < median['triangle']['of circle'] < 0.45
    for label in ('circle', 'square', 'triangle'):
        assert median[label]['of hull'] > 0.95
    assert {label: m['holes'] for label, m in median.items()} == {
        'circle': 0, 'square': 0, 'triangle': 0, 'ring': 1,
    }


@pytest.mark.parametrize('seed', range(10))
def test_the_smallest_data_set_has_every_class(tmp_path, seed):
    make_shapes_dataset(
        tmp_path / 's', num_train=4, num_val=4, image_size=(64, 64), seed=seed
    )
    folder = read_coco_folder(tmp_path / 's')
    assert min(folder.train.boxes_per_class + folder.val.boxes_per_class) > 0


def test_masks_lie_on_what_is_drawn(larger):
    # Inside a mask the image must differ from just outside; a shifted or
    # mirrored mask would not. Averaged, since contrast varies by design.
    kernel = np.ones((5, 5), np.uint8)
    right, mirrored = [], []
    for annotation in _load(larger, 'train')['annotations'][:100]:
        image = cv2.imread(
            str(larger / 'train' / f'{annotation["image_id"]:06d}.jpg')
        ).astype(float)
        mask = mask_util.decode(annotation['segmentation'])
        around = cv2.dilate(mask, kernel) - mask
        for values, picture in ((right, image), (mirrored, image[:, ::-1])):
            inside = picture[mask == 1].mean(axis=0)
            outside = picture[around == 1].mean(axis=0)
            values.append(np.linalg.norm(inside - outside))
    assert np.median(right) > 50
    assert np.median(right) > 5 * np.median(mirrored)


def test_pycocotools_reads_it(made):
    coco = COCO(str(made / 'annotations' / 'train.json'))
    annotation = coco.loadAnns([1])[0]
    assert coco.annToMask(annotation).sum() == annotation['area']


def test_sizes_are_spread_and_classes_balanced(larger):
    annotations = _load(larger, 'train')['annotations']
    longest = [max(a['bbox'][2:]) for a in annotations]
    assert np.percentile(longest, 10) < 36
    assert np.percentile(longest, 90) > 62
    assert max(longest) <= 86
    counts = np.bincount([a['category_id'] for a in annotations])[1:]
    assert counts.min() > 0.6 * counts.mean()
    per_image = np.bincount([a['image_id'] for a in annotations])[1:]
    assert per_image.min() >= 1
    assert per_image.max() <= 16
    assert len(set(per_image)) > 4


def test_same_arguments_give_the_same_bytes(made, tmp_path, small):
    make_shapes_dataset(tmp_path / 's', **small)
    assert _digests(tmp_path / 's') == _digests(made)


@pytest.mark.parametrize(
    'split, image_number', [('train', 1), ('train', 6), ('val', 5)]
)
def test_an_image_does_not_depend_on_the_count(
    made, tmp_path, split, image_number, small
):
    more = tmp_path / 'more'
    make_shapes_dataset(more, **{**small, 'num_train': 9, 'num_val': 7})
    name = f'{split}/{image_number:06d}.jpg'
    assert (more / name).read_bytes() == (made / name).read_bytes()
    few_annotations, more_annotations = (
        [a for a in _load(root, split)['annotations']
         if a['image_id'] == image_number]
        for root in (made, more)
    )
    assert few_annotations == more_annotations


def test_images_splits_and_seeds_differ(made, tmp_path, small):
    make_shapes_dataset(tmp_path / 's', **{**small, 'seed': 4})
    seen = set()
    for root in (made, tmp_path / 's'):
        images = list(root.glob('train/*.jpg')) + list(root.glob('val/*.jpg'))
        seen |= {path.read_bytes() for path in images}
    assert len(seen) == 2 * (6 + 5)


def test_global_random_states_are_left_alone(made, tmp_path, small):
    random.seed(11)
    np.random.seed(12)
    torch.manual_seed(13)
    python, legacy = random.getstate(), np.random.get_state()
    generator = torch.get_rng_state()
    make_shapes_dataset(tmp_path / 's', **small)
    assert random.getstate() == python
    assert (np.random.get_state()[1] == legacy[1]).all()
    assert np.random.get_state()[2:] == legacy[2:]
    assert torch.equal(torch.get_rng_state(), generator)
    assert _digests(tmp_path / 's') == _digests(made)
