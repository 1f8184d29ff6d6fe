"""Merging of the views of an image; boxes as mmdet merges them."""
import pytest
import torch
from helpers import assert_near
from mmdet.models import DetTTAModel
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from shiftwise_mm.models import InstanceTTAModel

HEIGHT, WIDTH = 30, 40
FLIPS = dict(horizontal=(-1, ), vertical=(-2, ), diagonal=(-2, -1))


class Module(torch.nn.Module):

    def test_step(self, data):
        return data['data_samples']


def tta(kind=InstanceTTAModel, most=100):
    return kind(module=Module(), tta_cfg=ConfigDict(
        nms=dict(type='nms', iou_threshold=.5), max_per_img=most))


def view(boxes, scores, labels, direction=None, masks=True):
    """A view in which an image, flipped, shows boxes of the image."""
    sample = DetDataSample(metainfo=dict(
        ori_shape=(HEIGHT, WIDTH), flip=direction is not None,
        flip_direction=direction))
    boxes = torch.tensor(boxes).reshape(-1, 4)
    canvas = torch.zeros(len(boxes), HEIGHT, WIDTH, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(canvas, boxes.int(), strict=True):
        mask[y1:y2, x1:x2] = True
    if direction:
        canvas = canvas.flip(FLIPS[direction])
        x1, y1, x2, y2 = boxes.unbind(1)
        if -1 in FLIPS[direction]:
            x1, x2 = WIDTH - x2, WIDTH - x1
        if -2 in FLIPS[direction]:
            y1, y2 = HEIGHT - y2, HEIGHT - y1
        boxes = torch.stack([x1, y1, x2, y2], 1)
    sample.pred_instances = InstanceData(
        bboxes=boxes, scores=torch.tensor(scores),
        labels=torch.tensor(labels, dtype=torch.long))
    if masks:
        sample.pred_instances.masks = canvas
    return sample


BOXES = [[2., 3., 12., 9.], [20., 11., 39., 28.]]


@pytest.mark.parametrize('direction', FLIPS)
def test_views_agree(direction):
    """What two views see is one instance, with the better view's score."""
    plain = view(BOXES, [.9, .3], [1, 5])
    turned = view([*BOXES, [0., 20., 8., 29.]], [.2, .8, .5], [1, 5, 5],
                  direction)
    merged, = tta().merge_preds([[plain, turned]])
    found = merged.pred_instances
    assert merged is plain
    assert_near(found.scores, torch.tensor([.9, .8, .5]))
    assert found.labels.tolist() == [1, 5, 5]
    assert_near(found.bboxes, torch.tensor([*BOXES, [0., 20., 8., 29.]]))
    for mask, box in zip(found.masks, found.bboxes.int(), strict=True):
        ys, xs = mask.nonzero(as_tuple=True)
        assert [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] == \
            box.tolist()


def test_classes_do_not_suppress_each_other():
    merged, = tta().merge_preds([[view(BOXES[:1], [.9], [1]),
                                  view(BOXES[:1], [.8], [2], 'horizontal')]])
    assert merged.pred_instances.labels.tolist() == [1, 2]


def test_no_more_than_max_per_img():
    merged, = tta(most=1).merge_preds([[view(BOXES, [.3, .9], [1, 5])]])
    assert merged.pred_instances.labels.tolist() == [5]
    assert merged.pred_instances.masks.shape == (1, HEIGHT, WIDTH)


@pytest.mark.parametrize('masks', [True, False])
def test_nothing_found(masks):
    views = [view([], [], [], masks=masks),
             view([], [], [], 'horizontal', masks=masks)]
    found = tta().merge_preds([views])[0].pred_instances
    assert len(found.bboxes) == 0 and ('masks' in found) == masks


def test_boxes_are_merged_as_by_mmdet():
    torch.manual_seed(0)
    results = []
    for kind in DetTTAModel, InstanceTTAModel:
        generator = torch.Generator().manual_seed(0)
        views = []
        for direction in None, *FLIPS:
            low = torch.rand(20, 2, generator=generator) * 20
            boxes = torch.cat([low, low + 8], 1)
            views.append(view(
                boxes.tolist(), torch.rand(20, generator=generator).tolist(),
                torch.randint(3, (20, ), generator=generator).tolist(),
                direction, masks=False))
        results.append(tta(kind, most=30).merge_preds([views])[0])
    theirs, ours = (r.pred_instances for r in results)
    assert 10 < len(ours) <= 30
    for name in 'bboxes', 'scores', 'labels':
        assert torch.equal(ours[name], theirs[name]), name
