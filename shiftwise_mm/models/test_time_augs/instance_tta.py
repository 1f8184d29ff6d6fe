"""Detection over augmented images, masks included."""
from __future__ import annotations

import itertools

import torch
from mmengine.model import BaseTTAModel
from mmengine.structures import InstanceData
from torch import Tensor

from shiftwise_mm.registry import MODELS
from shiftwise_mm.stack import import_optional

__all__ = ['InstanceTTAModel']

# Axes of an image (H, W) that a flip turns round.
_FLIPPED = dict(horizontal=(-1, ), vertical=(-2, ), diagonal=(-2, -1))


@MODELS.register_module()
class InstanceTTAModel(BaseTTAModel):
    """Merges the instances found in several views of an image.

    The boxes of all views, flipped back, go through one non-maximum
    suppression; each that stays keeps its score, label and mask. For boxes
    this is ``mmdet.DetTTAModel``, which refuses masks.

    Args:
        tta_cfg (dict): ``nms``, a config of ``mmcv.ops.batched_nms``, and
            ``max_per_img``, the most instances that an image keeps.
        kwargs: ``module``, the detector, and ``data_preprocessor``.
    """

    def __init__(self, tta_cfg: dict, **kwargs) -> None:
        super().__init__(**kwargs)
        self.tta_cfg = tta_cfg

    def test_step(self, data: dict) -> list:
        """One ``DetDataSample`` an image of a batch, from all its views.

        The detector is not told which views are flipped: mmdet's cascades
        would turn the masks of each view back by themselves, by indices with
        a negative step, which tensors refuse.
        """
        for sample in itertools.chain(*data['data_samples']):
            if sample.get('flip'):
                sample.set_metainfo(
                    dict(flip=False, view_direction=sample.flip_direction))
        return super().test_step(data)

    def merge_preds(self, data_samples_list: list[list]) -> list:
        """One ``DetDataSample`` an image from those of its views."""
        return [self._merge(views) for views in data_samples_list]

    def _merge(self, views: list):
        batched_nms = import_optional('mmcv.ops',
                                      type(self).__name__).batched_nms
        merged, *_ = views
        found = InstanceData.cat([_flipped_back(view) for view in views])
        if len(found):
            boxes, kept = batched_nms(found.bboxes, found.scores,
                                      found.labels, self.tta_cfg['nms'])
            found = found[kept]
            found.bboxes, found.scores = boxes[:, :4], boxes[:, 4]
        merged.pred_instances = found[:self.tta_cfg['max_per_img']]
        return merged


def _flipped_back(view) -> InstanceData:
    """The instances of a view as they lie in the image itself."""
    found = view.pred_instances
    direction = view.get('view_direction') or \
        (view.flip_direction if view.get('flip') else None)
    axes = _FLIPPED[direction] if direction else ()
    turned = InstanceData(
        bboxes=_flip_boxes(found.bboxes, view.ori_shape, axes),
        scores=found.scores, labels=found.labels)
    if 'masks' in found:
        turned.masks = found.masks.flip(axes)
    return turned


def _flip_boxes(boxes: Tensor, shape: tuple[int, int],
                axes: tuple[int, ...]) -> Tensor:
    """Boxes (n, 4), as x1, y1, x2, y2, in the flipped image of a shape."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    height, width = shape[:2]
    if -1 in axes:
        x1, x2 = width - x2, width - x1
    if -2 in axes:
        y1, y2 = height - y2, height - y1
    return torch.stack([x1, y1, x2, y2], dim=-1)
