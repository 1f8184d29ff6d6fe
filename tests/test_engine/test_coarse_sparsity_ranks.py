"""Sparse training by two processes: the same masks on both."""
import os
import subprocess
import sys

import pytest
import torch
from helpers import ROOT
from processes import run_forked
from segmentor import make_segmentor

from shiftwise_mm.engine.inputs import InputError
from shiftwise_mm.engine.training import config_for_training, run_training

# Writes masks and weights behind each iteration.
TRACE = '''
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from shiftwise_mm.engine.hooks import CoarseSparsityHook


@HOOKS.register_module()
class Apart(CoarseSparsityHook):
    """As if the generators of the ranks had come apart."""

    def __init__(self, **kwargs):
        super().__init__(seed=get_rank(), **kwargs)


@HOOKS.register_module()
class Trace(Hook):
    priority = 'VERY_LOW'
    rows = []

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        model = getattr(runner.model, 'module', runner.model)
        self.rows.append({
            name: value.clone() for name, value in model.state_dict().items()
            if '.large_kernel.mask' in name or '.large_kernel.convs.' in name})

    def after_train(self, runner):
        torch.save(self.rows, f'{runner.work_dir}/rank{get_rank()}.pth')
'''
CONFIG = """
_base_ = './config.py'
custom_imports = dict(imports=['trace'])
custom_hooks = [
    dict(type='Apart', sparsity=0.5, init='snip',
         growth='gradient', interval=1, path_gap=2),
    dict(type='Trace')]
"""


@pytest.fixture(scope='module')
def segmentor(tmp_path_factory):
    base = make_segmentor(tmp_path_factory.mktemp('segmentor'))
    (base / 'trace.py').write_text(TRACE)
    (base / 'sparse.py').write_text(CONFIG)
    return base


def run(segmentor, processes, work, *options):
    args = ['--work-dir', str(work), *options, '--cfg-options',
            f'train_dataloader.batch_size={4 // processes}', 'val_cfg=None',
            'val_dataloader=None', 'val_evaluator=None']
    env = {**os.environ, 'PYTHONPATH': str(segmentor),
           'PYTHON': sys.executable}
    if processes == 1:
        done = run_forked(ROOT / 'tools/train.py', 'sparse.py', *args,
                          cwd=segmentor, env=env, merge=True)
    else:
        done = subprocess.run(
            ['bash', str(ROOT / 'tools/dist_train.sh'), 'sparse.py',
             str(processes), *args], stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, cwd=segmentor, timeout=600,
            env=env)
    assert done.returncode == 0, done.stdout[-5000:]
    return [torch.load(work / f'rank{rank}.pth', weights_only=True)
            for rank in range(processes)]


@pytest.fixture(scope='module')
def ranks(segmentor, tmp_path_factory):
    work = tmp_path_factory.mktemp('two')
    return *run(segmentor, 2, work), work


def test_both_ranks_have_the_same_masks(ranks):
    one, other, _ = ranks
    assert len(one) == len(other) == 4
    for row, same in zip(one, other, strict=True):
        assert row.keys() == same.keys() and len(row) == 15
        for name, value in row.items():
            assert torch.equal(value, same[name]), name
    masks = [name for name in one[0] if name.endswith('.mask')]
    assert len(masks) == 5
    for i in range(3):
        before, after = one[i], one[i + 1]
        assert any(not torch.equal(before[n], after[n]) for n in masks) == (
            i < 2)  # the last step changes nothing any more
    for name in masks:
        layer = name.removesuffix('mask')
        assert torch.equal(*one[1][name])  # one decision of both paths
        for row in one:
            assert row[name].sum(1).tolist() == one[0][name].sum(1).tolist()
            for path, flags in enumerate(row[name]):
                weight = row[f'{layer}convs.{path}.weight']
                assert not weight[~flags].any()


def test_two_processes_decide_as_one_does(segmentor, ranks, tmp_path):
    """Scores and gradients are those of the whole batch."""
    single, = run(segmentor, 1, tmp_path)
    for row, same in zip(single, ranks[0], strict=True):
        for name, value in row.items():
            if name.endswith('.mask'):
                assert torch.equal(value, same[name]), name


@pytest.mark.slow
def test_two_processes_resume(segmentor, ranks, tmp_path):
    rows = run(segmentor, 2, tmp_path, '--resume',
               str(ranks[2] / 'iter_2.pth'))
    for resumed, whole in zip(rows, ranks[:2], strict=True):
        assert len(resumed) == 2
        for row, same in zip(resumed, whole[2:], strict=True):
            for name, value in row.items():
                assert torch.equal(value, same[name]), name


def test_a_setting_that_cannot_work_is_an_error_of_the_input(
        segmentor, tmp_path, monkeypatch):
    """Which the tools print in one line."""
    monkeypatch.chdir(segmentor)
    monkeypatch.syspath_prepend(segmentor)
    cfg = config_for_training(
        'sparse.py', work_dir=str(tmp_path),
        options={'model.backbone.frozen_stages': 4})
    with pytest.raises(InputError, match='no layer to train sparsely'):
        run_training(cfg)
