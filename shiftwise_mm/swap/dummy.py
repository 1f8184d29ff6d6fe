"""Batches of noise, as the models of MMDetection and MMSegmentation take."""
from __future__ import annotations

import numpy as np
import torch
import torch.nn as nn
from mmengine.structures import InstanceData, PixelData

__all__ = ['test_batch', 'training_batch']

_BATCH = 2  # for training; some predict one image at a time only
_BOXES = 4


def training_batch(model: nn.Module, size: int, classes: int) -> dict:
    """What a data loader gives for training, by the kind of preprocessor.

    Args:
        model (nn.Module): A detector, tracker or segmentor.
        size (int): Side of the images.
        classes (int): Labels are smaller than this.
    """
    kind = type(model.data_preprocessor).__name__
    if kind == 'SegDataPreProcessor':
        return _segmentation(size, classes)
    if kind == 'MultiBranchDataPreprocessor':
        return _branches(size, classes)
    if kind == 'TrackDataPreprocessor' \
            and not model.data_preprocessor.use_det_processor:
        return _video(size, classes, 2, [0])
    return _detection(size, classes, not getattr(model, 'with_rpn', True))


def test_batch(model: nn.Module, size: int, classes: int) -> dict:
    """What a data loader gives for testing; arguments as above."""
    kind = type(model.data_preprocessor).__name__
    if kind == 'SegDataPreProcessor':
        return _segmentation(size, classes, 1)
    if kind == 'TrackDataPreprocessor':
        return _video(size, classes, 2, None)
    return _detection(size, classes, not getattr(model, 'with_rpn', True), 1)


def _segmentation(size: int, classes: int, batch: int = _BATCH) -> dict:
    from mmseg.structures import SegDataSample
    samples = []
    for _ in range(batch):
        sample = SegDataSample(metainfo=dict(
            img_shape=(size, size), ori_shape=(size, size),
            pad_shape=(size, size), scale_factor=(1., 1.), flip=False,
            flip_direction=None))
        # Patches, so that no class is a single pixel.
        labels = torch.randint(0, classes, (1, size // 16, size // 16))
        sample.gt_sem_seg = PixelData(
            data=labels.repeat_interleave(16, 1).repeat_interleave(16, 2))
        samples.append(sample)
    return dict(inputs=[_image(size) for _ in samples], data_samples=samples)


def _image(size: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, size, size), dtype=torch.uint8)


def _detection(size: int, classes: int, proposals: bool = False,
               batch: int = _BATCH) -> dict:
    from mmdet.testing import demo_mm_inputs
    data = demo_mm_inputs(
        batch, (3, size, size), [_BOXES] * batch, num_classes=2,
        with_mask=True, with_semantic=True)
    for sample in data['data_samples']:
        _relabel(sample, classes)
        if proposals:
            boxes = sample.gt_instances.bboxes.repeat(8, 1)
            sample.proposals = InstanceData(
                bboxes=boxes, scores=torch.rand(len(boxes)))
    return data


def _relabel(sample, classes: int) -> None:
    labels = sample.gt_instances.labels
    sample.gt_instances.labels = torch.randint(0, classes, labels.shape)


def _branches(size: int, classes: int) -> dict:
    branches = {name: _detection(size, classes)
                for name in ('sup', 'unsup_teacher', 'unsup_student')}
    for branch in branches.values():
        for sample in branch['data_samples']:
            sample.set_metainfo(dict(
                homography_matrix=np.eye(3, dtype=np.float32)))
    return {key: {name: branch[key] for name, branch in branches.items()}
            for key in ('inputs', 'data_samples')}


def _video(size: int, classes: int, frames: int, keys: list | None) -> dict:
    from mmdet.testing import demo_track_inputs
    batch = demo_track_inputs(
        1, frames, keys, (3, size, size), [_BOXES], num_classes=2,
        with_mask=True)
    for video in batch['data_samples']:
        for sample in video.video_data_samples:
            _relabel(sample, classes)
            sample.gt_instances.instances_ids = torch.arange(_BOXES)
            sample.ignored_instances = InstanceData(
                bboxes=torch.zeros(0, 4))
    return batch
