"""MMDetection must read the data sets the way they are described."""

import json

import numpy as np
import pytest
from pycocotools import mask as mask_util

from shiftwise_mm.datasets import read_coco_folder

pytest.importorskip('mmcv.ops', reason='mmdet needs mmcv with its ops')
mmdet_datasets = pytest.importorskip('mmdet.datasets')
pytest.importorskip('mmdet.datasets.transforms')


def _dataset(root, classes, split, **options):
    return mmdet_datasets.CocoDataset(
        data_root=str(root),
        ann_file=f'annotations/{split}.json',
        data_prefix={'img': f'{split}/'},
        metainfo={'classes': classes},
        pipeline=[
            {'type': 'mmdet.LoadImageFromFile'},
            {'type': 'mmdet.LoadAnnotations', 'with_bbox': True,
             'with_mask': True},
        ],
        **options,
    )


def _labels(dataset):
    return [
        instance['bbox_label']
        for i in range(len(dataset))
        for instance in dataset.get_data_info(i)['instances']
        if not instance['ignore_flag']
    ]


@pytest.mark.parametrize('split', ['train', 'val'])
def test_images_boxes_and_masks_arrive(made, split):
    folder = read_coco_folder(made)
    dataset = _dataset(made, folder.classes, split)
    data = json.loads((made / 'annotations' / f'{split}.json').read_text())
    assert len(dataset) == getattr(folder, split).num_images
    arrived = 0
    for i in range(len(dataset)):
        sample = dataset[i]
        assert sample['img'].shape == (64, 96, 3)
        assert not sample['gt_ignore_flags'].any()
        expected = [
            a for a in data['annotations'] if a['image_id'] == sample['img_id']
        ]
        masks = sample['gt_masks'].masks
        assert len(masks) == len(expected) == len(sample['gt_bboxes_labels'])
        for mask, annotation in zip(masks, expected, strict=True):
            np.testing.assert_array_equal(
                mask, mask_util.decode(annotation['segmentation'])
            )
        arrived += len(masks)
    assert arrived == getattr(folder, split).num_boxes


@pytest.mark.parametrize('reverse', [False, True], ids=['1-4', '4-1'])
def test_counts_are_those_of_mmdet(copied, reverse):
    for split in ('train', 'val'):
        path = copied / 'annotations' / f'{split}.json'
        data = json.loads(path.read_text())
        if reverse:
            data['categories'].reverse()
        for i, change in enumerate([
            {'bbox': [5, 5, 0.9, 8]}, {'bbox': [5, 5, 1, 8]},
            {'bbox': [200, 5, 8, 8]}, {'bbox': [5, -8, 8, 8]},
            {'bbox': [5, -7, 8, 8]}, {'bbox': [96, 5, 8, 8]},
            {'area': 0}, {'ignore': 1}, {'iscrowd': 1}, {},
        ]):
            data['annotations'].append(
                {**data['annotations'][0], 'id': 500 + i, **change}
            )
        path.write_text(json.dumps(data))
    folder = read_coco_folder(copied)
    for split in ('train', 'val'):
        dataset = _dataset(copied, folder.classes, split)
        counts = np.bincount(_labels(dataset), minlength=4)
        assert getattr(folder, split).boxes_per_class == tuple(counts)
