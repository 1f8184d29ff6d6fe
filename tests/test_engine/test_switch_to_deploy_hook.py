"""Validation by the deployed form leaves a training as it was."""
import copy
from pathlib import Path

import pytest
import torch
import torch.nn as nn
from helpers import assert_near
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from processes import run_forked
from tasks import MODELS, runner_of, training

from shiftwise_mm.engine.deployables import deployed_copy, find_deployables
from shiftwise_mm.engine.inputs import InputError
from shiftwise_mm.models import ShiftWiseNet

HOOK = dict(type='shiftwise_mm.SwitchToDeployHook')
EMA = dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=.3,
           update_buffers=True)


@HOOKS.register_module(name='DeployWatch', force=True)
class Watch(Hook):
    """What ran in a validation, and in what shape the model was."""

    priority = 'VERY_LOW'

    def __init__(self):
        self.outputs, self.batch_norms, self.names = [], [], []
        self.metrics = []

    def before_val_epoch(self, runner):
        self.calls = 0
        model = runner.model
        self.handles = []
        for module in [*model.modules(), *[
                m for backbone in model.modules()
                if 'forward' in vars(backbone)
                for m in vars(backbone)['forward'].__self__.modules()]]:
            if isinstance(module, nn.BatchNorm2d):
                self.handles.append(module.register_forward_hook(self.count))
        self.names.append(list(model.state_dict()))

    before_test_epoch = before_val_epoch

    def count(self, *args):
        self.calls += 1

    def after_val_epoch(self, runner, metrics=None):
        self.batch_norms.append(self.calls)
        self.metrics.append(metrics)
        for handle in self.handles:
            handle.remove()

    def after_val_iter(self, runner, batch_idx, data_batch=None,
                       outputs=None):
        self.outputs.append([s.pred_score for s in outputs])

    def after_test_epoch(self, runner, metrics=None):
        self.after_val_epoch(runner)

    def after_test_iter(self, runner, batch_idx, data_batch=None,
                        outputs=None):
        self.after_val_iter(runner, batch_idx, outputs=outputs)


@pytest.fixture(autouse=True)
def best_is_saved(monkeypatch):
    monkeypatch.setitem(MODELS, 'classifier', {
        **MODELS['classifier'],
        'backbone': {**MODELS['classifier']['backbone'],
                     'drop_path_rate': .4}})


def runner(folder, *hooks, max_iters=4, **options):
    loader = dict(batch_size=2, num_workers=0,
                  sampler=dict(type='DefaultSampler', shuffle=False),
                  dataset=dict(type='mmengine.ImagesOfTheHook',
                               name='classifier'))
    options = {**training('classifier', max_iters), **options}
    options['train_cfg'] = {**options['train_cfg'], 'val_interval': 2}
    return runner_of(
        'classifier', folder, hooks=[*hooks, dict(type='DeployWatch')],
        **{f'{kind}_dataloader': loader for kind in ('val', 'test')},
        **{f'{kind}_evaluator': dict(type='shiftwise_mm.TopKAccuracy')
           for kind in ('val', 'test')}, val_cfg=dict(), test_cfg=dict(),
        **options)


def trained(folder, *hooks, **options):
    run = runner(folder, *hooks, **options)
    run.train()
    watch, = (hook for hook in run.hooks if isinstance(hook, Watch))
    return run, watch


@pytest.mark.parametrize('hooks', [(), (EMA, )], ids=['plain', 'EMA'])
def test_the_training_is_the_same(hooks, tmp_path):
    """Weights, averages, checkpoints and random numbers, bit for bit."""
    (plain, seen), (deployed, watch) = (
        trained(tmp_path / str(i), *more, *hooks)
        for i, more in enumerate(((), (HOOK, ))))
    files = [torch.load(tmp_path / f'{i}/iter_4.pth', weights_only=True)
             for i in range(2)]
    for key in 'state_dict', 'ema_state_dict':
        one, other = (file.get(key, {}) for file in files)
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert torch.equal(other[name], value), name
    for name, value in plain.model.state_dict().items():
        assert torch.equal(deployed.model.state_dict()[name], value), name
    # Nothing of the training form ran, and what did gave the same.
    assert min(seen.batch_norms) > 0 and not any(watch.batch_norms)
    assert len(watch.batch_norms) == 2 and watch.names == seen.names
    for a, b in zip(watch.outputs, seen.outputs, strict=True):
        assert_near(torch.stack(a), torch.stack(b))
    assert not any('forward' in vars(m) for m in deployed.model.modules())


def test_a_test_and_a_test_behind_a_training(tmp_path):
    run, watch = trained(tmp_path, HOOK)
    before = copy.deepcopy(run.model.state_dict())
    run.test()
    assert watch.batch_norms == [0, 0, 0]
    for name, value in run.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    run.val()
    alone = runner(tmp_path / 'alone', HOOK, load_from=str(
        tmp_path / 'iter_4.pth'))
    alone.test()
    again, = (hook for hook in alone.hooks if isinstance(hook, Watch))
    assert again.batch_norms == [0]
    for a, b in zip(again.outputs, watch.outputs[-len(again.outputs):],
                    strict=True):
        assert_near(torch.stack(a), torch.stack(b))


def test_a_failed_validation_leaves_nothing(tmp_path, monkeypatch):
    run = runner(tmp_path, HOOK)

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Watch, 'after_val_iter', fail)
    with pytest.raises(KeyboardInterrupt):
        run.train()
    assert 'forward' in vars(run.model.backbone)
    run.call_hook('before_train_iter', batch_idx=2, data_batch={})
    assert 'forward' not in vars(run.model.backbone)


def test_a_forward_of_its_own_comes_back(tmp_path):
    run = runner(tmp_path, HOOK)
    backbone = run.model.backbone
    backbone.forward = own = torch.compile(backbone.forward, backend='eager')
    run.val()
    assert backbone.forward is own


def test_what_cannot_be_deployed_is_said_before_the_first_step(tmp_path):
    config = copy.deepcopy(MODELS['classifier'])
    config['backbone']['norm_cfg'] = dict(type='GN', num_groups=1)
    MODELS['classifier'], kept = config, MODELS['classifier']
    try:
        run = runner(tmp_path, HOOK)
    finally:
        MODELS['classifier'] = kept
    with pytest.raises(InputError, match='cannot deploy backbone.*GroupNorm'):
        run.train()
    assert run.iter == 0


def test_a_deployed_model_is_tested_as_it_is(tmp_path, caplog):
    run = runner(tmp_path, HOOK)
    run.model.backbone.switch_to_deploy()
    run.val()
    assert not any('forward' in vars(m) for m in run.model.modules())


def test_which_modules_are_found():
    class Foreign(nn.Module):
        def switch_to_deploy(self):
            self.deploy = True

    model = nn.ModuleDict(dict(
        a=ShiftWiseNet(dict(embed_dims=(4, ), depths=(1, )),
                       kernel_sizes=(7, )),
        b=nn.Sequential(nn.ReLU(), Foreign())))
    assert list(dict(find_deployables(model))) == ['a', 'b.1']
    state = torch.get_rng_state()
    copied = deployed_copy(model['a'])
    assert torch.equal(torch.get_rng_state(), state)
    assert copied.deploy and not copied.training
    assert not model['a'].deploy and model['a'].training
    model['a'].switch_to_deploy()
    assert list(dict(find_deployables(model))) == ['b.1']


# Trains without the hook and with it, as one of two processes.
RANKS = '''
import os
import sys
sys.path[:0] = {paths}
import tasks
import torch
import torch.distributed as dist
import test_switch_to_deploy_hook as own
from shiftwise_mm.engine.runner import PortableRunner


def train(rank, folder):
    os.environ['LOCAL_RANK'] = str(rank)
    torch.set_num_threads(1)
    tasks.Runner = PortableRunner
    dist.init_process_group('gloo', init_method=f'file://{{folder}}/store',
                            rank=rank, world_size=2)
    own.MODELS['classifier']['backbone']['drop_path_rate'] = .4
    rows = []
    for name, hooks in ('plain', ()), ('deployed', (own.HOOK, )):
        run, watch = own.trained(f'{{folder}}/{{name}}', *hooks,
                                 launcher='pytorch')
        rows.append(dict(
            wrapper=type(run.model).__name__, names=watch.names,
            batch_norms=watch.batch_norms, metrics=watch.metrics,
            outputs=torch.stack([torch.stack(o) for o in watch.outputs]),
            weights=run.model.state_dict(), random=torch.get_rng_state()))
    torch.save(rows, f'{{folder}}/rank{{rank}}.pth')
    dist.destroy_process_group()


torch.multiprocessing.start_processes(train, (sys.argv[1], ), 2,
                                      start_method='fork')
'''


def test_processes_that_train_together(tmp_path):
    """Each computes its part of the images by a deployed copy."""
    here = Path(__file__).parent
    done = run_forked(
        '-c', RANKS.format(paths=[str(here), str(here.parent)]), tmp_path,
        cwd=tmp_path, merge=True)
    assert done.returncode == 0, done.stdout[-5000:]
    ranks = [torch.load(tmp_path / f'rank{rank}.pth', weights_only=True)
             for rank in range(2)]
    for plain, deployed in ranks:
        assert deployed['wrapper'] == 'MMDistributedDataParallel'
        assert min(plain['batch_norms']) > 0
        assert deployed['batch_norms'] == [0, 0]
        assert deployed['names'] == plain['names']
        assert deployed['metrics'] == ranks[0][0]['metrics']
        assert_near(deployed['outputs'], plain['outputs'])
        for name, value in plain['weights'].items():
            assert torch.equal(deployed['weights'][name], value), name
        assert torch.equal(deployed['random'], plain['random'])
    one, other = (rank[1]['outputs'] for rank in ranks)
    assert not torch.equal(one, other)  # of other images
