"""Batches of noise, as the models of MMDetection and MMSegmentation take."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn as nn
from mmengine.structures import InstanceData, PixelData

from shiftwise_mm.stack import import_optional

__all__ = ['Noise']

_BATCH = 2  # for training; some predict one image at a time only
_BOXES = 4


@dataclass(frozen=True)
class Noise:
    """Random images and labels.

    Args:
        size (int): Side of the images.
        classes (int): Labels are smaller than this.
        channels (int): Of the images. Defaults to 3.
        masks (bool): Whether objects have masks. Defaults to True.
    """
    size: int
    classes: int
    channels: int = 3
    masks: bool = True

    def training(self, model: nn.Module) -> dict:
        """What a data loader gives, by the kind of preprocessor."""
        kind = type(model.data_preprocessor).__name__
        if kind == 'SegDataPreProcessor':
            return self._segmentation(_BATCH)
        if kind == 'MultiBranchDataPreprocessor':
            return self._branches()
        if kind == 'TrackDataPreprocessor' \
                and not model.data_preprocessor.use_det_processor:
            return self._video([0])
        return self._detection(_BATCH, not getattr(model, 'with_rpn', True))

    def test(self, model: nn.Module) -> dict:
        """What a data loader gives for one image or video."""
        kind = type(model.data_preprocessor).__name__
        if kind == 'SegDataPreProcessor':
            return self._segmentation(1)
        if kind == 'TrackDataPreprocessor':
            return self._video(None)
        return self._detection(1, not getattr(model, 'with_rpn', True))

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self.channels, self.size, self.size

    def _segmentation(self, batch: int) -> dict:
        structures = import_optional('mmseg.structures', 'a segmentor')
        sides = self._shape[1:]
        samples = []
        for _ in range(batch):
            sample = structures.SegDataSample(metainfo=dict(
                img_shape=sides, ori_shape=sides, pad_shape=sides,
                scale_factor=(1., 1.), flip=False, flip_direction=None))
            # Patches, so that no class is a single pixel.
            labels = torch.randint(0, self.classes,
                                   (1, self.size // 16, self.size // 16))
            sample.gt_sem_seg = PixelData(
                data=labels.repeat_interleave(16, 1).repeat_interleave(16, 2))
            samples.append(sample)
        images = [torch.randint(0, 256, self._shape, dtype=torch.uint8)
                  for _ in samples]
        return dict(inputs=images, data_samples=samples)

    def _detection(self, batch: int, proposals: bool = False) -> dict:
        data = import_optional('mmdet.testing', 'a detector').demo_mm_inputs(
            batch, self._shape, [_BOXES] * batch, num_classes=2,
            with_mask=self.masks, with_semantic=True)
        for sample in data['data_samples']:
            self._relabel(sample)
            if proposals:
                boxes = sample.gt_instances.bboxes.repeat(8, 1)
                sample.proposals = InstanceData(
                    bboxes=boxes, scores=torch.rand(len(boxes)))
        return data

    def _relabel(self, sample) -> None:
        labels = sample.gt_instances.labels
        sample.gt_instances.labels = torch.randint(
            0, self.classes, labels.shape)

    def _branches(self) -> dict:
        branches = {name: self._detection(_BATCH)
                    for name in ('sup', 'unsup_teacher', 'unsup_student')}
        for branch in branches.values():
            for sample in branch['data_samples']:
                sample.set_metainfo(dict(
                    homography_matrix=np.eye(3, dtype=np.float32)))
        return {key: {name: branch[key] for name, branch in branches.items()}
                for key in ('inputs', 'data_samples')}

    def _video(self, keys: list | None) -> dict:
        """Two frames; in training with the places of the key frames."""
        data = import_optional('mmdet.testing', 'a tracker').demo_track_inputs(
            1, 2, keys, self._shape, [_BOXES], num_classes=2,
            with_mask=self.masks)
        for video in data['data_samples']:
            for sample in video.video_data_samples:
                self._relabel(sample)
                sample.gt_instances.instances_ids = torch.arange(_BOXES)
                sample.ignored_instances = InstanceData(
                    bboxes=torch.zeros(0, 4))
        return data
