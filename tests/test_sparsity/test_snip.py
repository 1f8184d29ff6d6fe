"""SNIP: scores by hand, and what they leave as it was."""
import copy
import random

import numpy as np
import pytest
import torch
from sparse import BACKBONE, SLAK, Task

from shiftwise_mm.sparsity import NoScoresError, find_targets, snip_scores


def task(backbone=BACKBONE, **options):
    torch.manual_seed(0)
    model = Task(dict(backbone), **options)
    batch = dict(inputs=torch.rand(4, 3, 32, 32),
                 labels=torch.tensor([0, 1, 2, 1]))
    return model.train(), batch


@pytest.mark.parametrize('backbone, granularity', [
    (BACKBONE, 'tap'), (BACKBONE, 'weight'),
    ({**BACKBONE, 'with_cp': True}, 'tap'), (SLAK, 'weight'),
    ({**SLAK, 'form': 'shiftwise'}, 'tap'),
    ({**SLAK, 'form': 'shared_gated'}, 'tap')])
def test_scores_are_those_of_the_loss(backbone, granularity):
    model, batch = task(backbone)
    targets = find_targets(model, granularity)
    expected = copy.deepcopy(model)
    state = torch.get_rng_state()
    scores = snip_scores(model, batch, targets)
    torch.set_rng_state(state)
    expected(**batch, mode='loss')['loss'].backward()
    assert len(scores) == len(targets)
    for target, score in zip(targets, scores, strict=True):
        weights = target.same_in(expected).weights
        assert score.shape == (len(weights), target.units)
        for path, weight in enumerate(weights):
            product = (weight * weight.grad).abs().detach()
            product = product.mean((1, 2, 3)) if granularity == 'tap' \
                else product.flatten()
            assert torch.allclose(score[path], product, rtol=1e-5, atol=0)
            assert product.max() > 0


def test_nothing_else_changes():
    model, batch = task()
    targets = find_targets(model, 'tap')
    model.fc.weight.grad = torch.ones_like(model.fc.weight)
    states = (torch.get_rng_state(), np.random.get_state(),
              random.getstate())
    before, given = copy.deepcopy(model), copy.deepcopy(batch)
    snip_scores(model, batch, targets)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert str(np.random.get_state()) == str(states[1])
    assert random.getstate() == states[2]
    for name, value in before.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert model.calls == 0
    assert {name for name, p in model.named_parameters()
            if p.grad is not None} == {'fc.weight'}
    assert torch.equal(model.fc.weight.grad,
                       torch.ones_like(model.fc.weight))
    for name, value in given.items():
        assert torch.equal(batch[name], value)


def test_a_batch_that_the_model_changes_is_not_changed():
    model, batch = task()
    inner = model.data_preprocessor.forward

    def forward(data, training):
        data = inner(data, training)
        data['inputs'] += 1
        return data

    model.data_preprocessor.forward = forward
    given = batch['inputs'].clone()
    snip_scores(model, batch, find_targets(model, 'tap'))
    assert torch.equal(batch['inputs'], given)


@pytest.mark.parametrize('kind, words', [
    ('constant', r'does not depend on the kernels of backbone\.stages\.0'),
    ('fixed', 'depends on no parameter'), ('nan', 'not finite')])
def test_losses_that_tell_nothing(kind, words):
    model, batch = task(loss=kind)
    with pytest.raises(NoScoresError, match=words):
        snip_scores(model, batch, find_targets(model, 'tap'))


def test_a_loss_that_depends_on_no_kernel():
    model, batch = task()
    for block in (b for stage in model.backbone.stages for b in stage):
        block.gamma.data.zero_()
    with pytest.raises(NoScoresError, match='all scores are 0'):
        snip_scores(model, batch, find_targets(model, 'tap'))


def test_no_loss_at_all():
    model, batch = task()
    model.train_step = lambda data, optim_wrapper: {}
    with pytest.raises(NoScoresError, match=r'Task\.train_step handed no'):
        snip_scores(model, batch, find_targets(model, 'tap'))
