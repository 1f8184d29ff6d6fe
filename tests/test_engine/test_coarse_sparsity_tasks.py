"""Sparse training of detectors, segmentors and classifiers."""
import pytest
import torch
from sparse import HOOK, assert_zero, masks_of
from tasks import MODELS, runner_of, training


@pytest.mark.parametrize('granularity', ['tap', 'weight'])
@pytest.mark.parametrize('name', MODELS)
def test_snip_by_the_loss_of_the_task(name, granularity, tmp_path):
    hooks = [{**HOOK, 'init': 'snip', 'growth': 'gradient', 'interval': 1,
              'granularity': granularity},
             dict(type='EMAHook', momentum=.1)]
    runner = runner_of(name, tmp_path, hooks, **training(name, 4))
    runner.train()
    masks = masks_of(runner.model)
    assert len(masks) == 5  # four stages, the second of two blocks
    assert_zero(runner.model, runner.optim_wrapper.optimizer)
    kept = torch.cat([mask.flatten() for mask in masks.values()])
    assert .55 < kept.float().mean() < .65
    densities = {mask.float().mean().item() for mask in masks.values()}
    assert len(densities) > 2
    hub = runner.message_hub
    assert hub.get_scalar('train/density_stage3').current() == pytest.approx(
        masks['backbone.stages.3.0.large_kernel.mask'].float().mean().item())
