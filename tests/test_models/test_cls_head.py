"""The head by hand, and the published logits."""
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from helpers import assert_near
from mmengine.structures import BaseDataElement

from shiftwise_mm.models import ShiftWiseClsHead


def make(num_classes=3, in_channels=5, **options):
    torch.manual_seed(0)
    head = ShiftWiseClsHead(num_classes, in_channels, **options)
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    return head


def samples(*labels):
    return [BaseDataElement(gt_label=torch.tensor([i])) for i in labels]


def by_hand(head, x):
    pooled = torch.stack([
        torch.stack([channel.sum() / channel.numel() for channel in image])
        for image in x])
    centred = pooled - pooled.mean(1, keepdim=True)
    variance = centred.square().mean(1, keepdim=True)
    normed = centred / (variance + 1e-6).sqrt()
    normed = normed * head.norm.weight + head.norm.bias
    return normed @ head.fc.weight.T + head.fc.bias


def test_logits_by_hand():
    head, x = make(), torch.randn(2, 5, 7, 3)
    # Small enough that eps counts.
    for scale in (1, 1e-3):
        assert_near(head((None, x * scale)), by_hand(head, x * scale))


@pytest.mark.parametrize('smoothing', [0., .1, .3])
def test_loss_by_hand(smoothing):
    head = make(loss=dict(type='torch.nn.CrossEntropyLoss',
                          label_smoothing=smoothing))
    x, labels = torch.randn(4, 5, 2, 2), (2, 0, 1, 2)
    losses = head.loss((x, ), samples(*labels))
    target = F.one_hot(torch.tensor(labels), 3) * (1 - smoothing) \
        + smoothing / 3
    log_prob = F.log_softmax(by_hand(head, x), 1)
    assert list(losses) == ['loss']
    assert_near(losses['loss'], -(target * log_prob).sum(1).mean())


def test_loss_of_mixed_labels_by_hand():
    """What mixup gives: a share of each class."""
    head, x = make(), torch.randn(2, 5, 2, 2)
    share = torch.tensor([[.7, .3, 0.], [0., .1, .9]])
    losses = head.loss((x, ), [BaseDataElement(
        gt_score=score, gt_label=torch.tensor([0])) for score in share])
    target = share * .9 + .1 / 3
    log_prob = F.log_softmax(by_hand(head, x), 1)
    assert_near(losses['loss'], -(target * log_prob).sum(1).mean())


def test_smoothing_of_the_published_training_is_the_default():
    assert make().loss_module.label_smoothing == .1


def test_predictions():
    head, x = make(), torch.randn(4, 5, 2, 2)
    given = samples(2, 0, 1, 2)
    expected = by_hand(head, x).exp()
    expected /= expected.sum(1, keepdim=True)
    for result in head.predict((x, ), given), head.predict((x, )):
        assert len(result) == 4
        for sample, score in zip(result, expected, strict=True):
            assert_near(sample.pred_score, score)
            assert sample.pred_label.tolist() == [score.argmax().item()]
    assert all('gt_label' in sample for sample in head.predict((x, ), given))


def test_the_initialisation_is_the_published_one():
    torch.manual_seed(0)
    head = ShiftWiseClsHead(1000, 64)
    assert head.fc.weight.std().item() == pytest.approx(.02, rel=.02)
    assert not head.fc.bias.any()
    head = ShiftWiseClsHead(3, 4, init_cfg=dict(
        type='Constant', layer='Linear', val=2.))
    head.init_weights()
    assert (head.fc.weight == 2).all()


@pytest.mark.parametrize('args, error, words', [
    ((0, 5), ValueError, 'num_classes.*1.*0'),
    ((3, 0), ValueError, 'in_channels.*1.*0'),
    ((3., 5), TypeError, r'num_classes.*integer.*3\.0'),
])
def test_bad_arguments_are_named(args, error, words):
    with pytest.raises(error, match=words):
        ShiftWiseClsHead(*args)


@pytest.mark.parametrize('shape', [(2, 4, 3, 3), (5, 3, 3)], ids=str)
def test_features_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r'feats.*C.*in_channels = 5.*\('):
        make()((torch.randn(shape), ))
