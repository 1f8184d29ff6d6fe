"""Accuracy by hand, through mmengine's Evaluator."""
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import BaseDataElement

from shiftwise_mm.datasets import DataError
from shiftwise_mm.evaluation import TopKAccuracy


def sample(scores, label):
    return BaseDataElement(pred_score=torch.tensor(scores),
                           gt_label=torch.tensor([label]))


SAMPLES = [sample([.1, .2, .7], 2), sample([.1, .2, .7], 1),
           sample([.1, .2, .7], 0), sample([.5, .3, .2], 0),
           sample([.3, .6, .1], 0)]


def test_percents_by_hand():
    evaluator = Evaluator(dict(type='shiftwise_mm.TopKAccuracy',
                               topk=[1, 2, 3]))
    evaluator.dataset_meta = dict(classes=('a', 'b', 'c'))
    for part in SAMPLES[:2], SAMPLES[2:]:
        evaluator.process(part)
    assert evaluator.evaluate(5) == {
        'accuracy/top1': 40., 'accuracy/top2': 80., 'accuracy/top3': 100.}
    # The next evaluation starts anew, and drops what fills up a batch.
    evaluator.process(SAMPLES)
    assert evaluator.evaluate(1)['accuracy/top1'] == 100.


def test_one_number():
    evaluator = Evaluator(TopKAccuracy(topk=2, prefix='val'))
    evaluator.process(SAMPLES)
    assert evaluator.evaluate(5) == {'val/top2': 80.}
    assert TopKAccuracy().topk == (1, 5)


def test_fewer_classes_than_k():
    with pytest.raises(ValueError, match='topk=5.*model has 3'):
        Evaluator(TopKAccuracy(topk=(1, 5))).process(SAMPLES)


def test_other_classes_than_the_data_set():
    evaluator = Evaluator(TopKAccuracy(topk=1))
    evaluator.dataset_meta = dict(classes=('a', 'b'))
    with pytest.raises(DataError, match='set has 2 classes, the model 3'):
        evaluator.process(SAMPLES)


@pytest.mark.parametrize('topk, error', [
    (0, ValueError), ((1, -5), ValueError), ((), ValueError),
    (1.5, TypeError), ('1', TypeError)], ids=str)
def test_bad_numbers_are_named(topk, error):
    with pytest.raises(error, match='topk'):
        TopKAccuracy(topk=topk)
