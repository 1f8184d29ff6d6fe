"""Several processes without an accelerator, by the scripts of tools/."""
import os
import re
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import ROOT, assert_near, randomise_norms, run_python
from processes import run_forked
from segmentor import build_segmentor, make_segmentor
from slurm import install_slurm

from shiftwise_mm.engine.inputs import InputError
from shiftwise_mm.engine.runner import start_gloo

# Writes what the test compares: the losses of each process, and its model.
TRACE = """
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class Trace(Hook):
    losses = []

    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        self.losses.append(outputs['loss'].item())

    def after_train(self, runner):
        model = getattr(runner.model, 'module', runner.model)
        torch.save(dict(losses=self.losses,
                        parameters=dict(model.named_parameters()),
                        buffers=dict(model.named_buffers())),
                   f'{runner.work_dir}/rank{get_rank()}.pth')
"""
# Batch-norms whose statistics are not those of fresh ones.
CONFIG = """
_base_ = './config.py'
custom_imports = dict(imports=['trace'])
custom_hooks = [dict(type='Trace')]
load_from = 'start.pth'
"""
# By mmengine's own option all of its plain batch-norms would be converted.
CONVERTING = 'sync_bn=torch', 'model.backbone.norm_cfg.type=BN'
NONE_CONVERTED = 'SyncBN runs on accelerators only: its 0 layers'


@pytest.fixture(scope='module')
def segmentor(tmp_path_factory):
    base = make_segmentor(tmp_path_factory.mktemp('segmentor'))
    (base / 'trace.py').write_text(TRACE)
    (base / 'traced.py').write_text(CONFIG)
    model = build_segmentor(base)
    randomise_norms(model)
    torch.save(model.state_dict(), base / 'start.pth')
    return base


def run(script, *args, cwd, code=0, **env):
    """What a script of tools/ prints."""
    command = [str(ROOT / 'tools' / script), *map(str, args)]
    env = {**os.environ, 'PYTHONPATH': str(cwd), 'PYTHON': sys.executable,
           **env}
    if script.endswith('.py'):
        done = run_forked(*command, cwd=cwd, env=env, merge=True)
    else:
        done = subprocess.run(
            ['bash', *command], stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, cwd=cwd, timeout=600,
            env=env)
    assert done.returncode == code, done.stdout[-5000:]
    return done.stdout


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


@pytest.fixture(scope='module')
def traces(segmentor, tmp_path_factory):
    """One process with the whole batch, two with a half each, their log."""
    one, two = (tmp_path_factory.mktemp(name) for name in ('one', 'two'))
    run('train.py', 'traced.py', '--work-dir', one, cwd=segmentor)
    log = run('dist_train.sh', 'traced.py', 2, '--work-dir', two,
              '--cfg-options', 'train_dataloader.batch_size=2', cwd=segmentor)
    single, *ranks = (torch.load(file, weights_only=True) for file in (
        one / 'rank0.pth', two / 'rank0.pth', two / 'rank1.pth'))
    return single, ranks, log, two


def test_two_processes_train_as_one(traces):
    single, ranks, *_ = traces
    losses = [rank['losses'] for rank in ranks]
    assert len(single['losses']) == 4 and losses[0] != losses[1]
    np.testing.assert_allclose(np.mean(losses, 0), single['losses'],
                               rtol=1e-5)
    # It moves: the trace is not that of a model that stands still.
    assert abs(single['losses'][0] - single['losses'][2]) > 1e-3
    for name, parameter in single['parameters'].items():
        assert_near(ranks[0]['parameters'][name], parameter, 1e-4)


@pytest.mark.parametrize('part', ['parameters', 'buffers'])
def test_all_processes_hold_the_same(part, traces):
    _, (one, other), *_ = traces
    assert one[part].keys() == other[part].keys() and len(one[part]) > 20
    for name, value in one[part].items():
        assert torch.equal(value, other[part][name]), name


def test_buffers_are_of_every_kind(traces):
    names = {name.rpartition('.')[2] for name in traces[0]['buffers']}
    assert {'running_mean', 'num_batches_tracked', 'rep_index', 'ghost_index',
            'shift_h', 'shift_v', 'shift_i'} <= names


def test_sync_bn_is_reverted_with_one_line(traces):
    log = traces[2]
    line, = re.findall('SyncBN runs on accelerators only: its .*', log)
    assert int(re.search(r'its (\d+) layers', line)[1]) > 10
    assert 'mIoU' in log


@pytest.mark.slow
def test_two_processes_test_as_one(segmentor, traces, tmp_path):
    checkpoint = traces[3] / 'iter_4.pth'
    logs = [
        run('test.py', 'config.py', checkpoint, '--work-dir', tmp_path / '1',
            cwd=segmentor),
        run('dist_test.sh', 'config.py', checkpoint, 2, '--work-dir',
            tmp_path / '2', cwd=segmentor, PORT=free_port())]
    metrics = [re.findall(r'aAcc: [\d.]+  mIoU: [\d.]+', log) for log in logs]
    assert metrics[0] and set(metrics[0]) == set(metrics[1])


def test_slurm(segmentor, tmp_path):
    """And no batch-norm is converted, as mmengine's option would."""
    install_slurm(tmp_path)
    log = run('slurm_train.sh', 'part', 'job', 'traced.py', tmp_path / 'work',
              '--cfg-options', 'train_cfg.max_iters=2', *CONVERTING,
              cwd=segmentor, PATH=f'{tmp_path}:{os.environ["PATH"]}', GPUS='2',
              GPUS_PER_NODE='2', SRUN_ARGS='--exclusive --quiet',
              MASTER_PORT=free_port())
    assert (tmp_path / 'work/rank1.pth').is_file()
    assert log.count(NONE_CONVERTED) == 1
    options = re.findall('srun: (.*)', log)
    assert options == [
        '-p', '--job-name=job', '--gres=gpu:2', '--ntasks=2',
        '--ntasks-per-node=2', '--cpus-per-task=5', '--kill-on-bad-exit=1',
        '--exclusive', '--quiet']


@pytest.mark.parametrize('script, args', [
    ('dist_train.sh', ['config.py']), ('dist_test.sh', ['config.py', 'x.pth']),
    ('slurm_train.sh', ['part', 'job', 'config.py'])])
def test_scripts_tell_their_usage(script, args, tmp_path):
    log = run(script, *args, cwd=tmp_path, code=2)
    assert log.startswith(f'{script}: usage: {script} ')
    assert log.count('\n') == 1


def test_a_bad_config_ends_all_processes(tmp_path):
    log = run('dist_train.sh', 'gone.py', 2, cwd=tmp_path, code=1)
    assert re.findall('^train: config gone.py cannot be read.*', log, re.M)


def test_the_installed_module_is_launched(tmp_path):
    """As docs/tools.md has it, where there are no scripts."""
    done = subprocess.run(
        [sys.executable, '-P', '-m', 'torch.distributed.run', '--standalone',
         '--nproc_per_node', '1', '-m', 'shiftwise_mm', 'train', 'gone.py',
         '--launcher', 'pytorch'], stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 1
    assert re.findall('^train: config gone.py cannot be read.*', done.stdout,
                      re.M)


@pytest.mark.parametrize('launcher, missing', [
    ('pytorch', 'RANK'), ('pytorch', 'WORLD_SIZE'), ('pytorch', 'MASTER_ADDR'),
    ('slurm', 'SLURM_PROCID'), ('slurm', 'SLURM_NODELIST'),
    ('mpi', 'OMPI_COMM_WORLD_SIZE')])
def test_a_missing_variable_is_named(launcher, missing, monkeypatch):
    for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'SLURM_PROCID',
                 'SLURM_LOCALID', 'SLURM_NTASKS', 'SLURM_NODELIST',
                 'OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK',
                 'OMPI_COMM_WORLD_SIZE'):
        monkeypatch.setenv(name, '0')
    monkeypatch.delenv('MASTER_ADDR', raising=False)
    monkeypatch.delenv(missing, raising=False)
    with pytest.raises(InputError,
                       match=f'launcher {launcher} .* {missing}, which'):
        start_gloo(launcher)


def test_the_launcher_mpi_joins(tmp_path):
    out = run_python(
        """
        from mmengine.dist import get_backend, get_dist_info
        from shiftwise_mm.engine.runner import leave_group, start_gloo
        start_gloo('mpi', backend='nccl', timeout=60)
        print(get_backend(), get_dist_info())
        leave_group()
        print(get_backend(), get_dist_info())
        """, tmp_path, run=run_forked, OMPI_COMM_WORLD_RANK='0',
        OMPI_COMM_WORLD_SIZE='1', OMPI_COMM_WORLD_LOCAL_RANK='0',
        MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port())
    assert out[-2:] == ['gloo (0, 1)', 'None (0, 1)']


@pytest.mark.parametrize('tool', [
    'train', pytest.param('test', marks=pytest.mark.slow)])
def test_no_thread_of_gloo_outlives_the_run(tool, segmentor, traces,
                                            tmp_path):
    """One that does aborts some of the processes when they exit."""
    call = {
        'train': "run_training(config_for_training('config.py', "
        "options={'train_cfg.max_iters': 1}, ",
        'test': "run_test(config_for_test('config.py', "
        f"{str(traces[3] / 'iter_4.pth')!r}, "
    }[tool] + f"work_dir={str(tmp_path)!r}, launcher='pytorch'))"
    out = run_python(
        f"""
        from pathlib import Path
        import torch.distributed as dist
        from shiftwise_mm.engine.testing import config_for_test, run_test
        from shiftwise_mm.engine.training import (config_for_training,
                                                  run_training)
        leave, seen = dist.destroy_process_group, []

        def threads():
            return {{path.read_text().strip()
                    for path in Path('/proc/self/task').glob('*/comm')}}

        def watched(*args):
            seen.append(threads())
            leave(*args)

        dist.destroy_process_group = watched
        {call}
        before, after = any('gloo' in name for name in seen[0]), threads()
        print(before, dist.is_initialized(),
              [name for name in after if 'gloo' in name])
        """, segmentor, run=run_forked, RANK='0', LOCAL_RANK='0',
        WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port())
    assert out[-1] == 'True False []'


@pytest.mark.slow
def test_every_launch_ends_well(segmentor, tmp_path):
    for i in range(1, 21):
        converting = i % 2
        options = CONVERTING if converting else []
        log = run('dist_train.sh', 'config.py', 2, '--work-dir',
                  tmp_path / str(i), '--cfg-options', 'train_cfg.max_iters=2',
                  'train_cfg.val_interval=2', *options, cwd=segmentor)
        assert 'mIoU' in log
        assert log.count(NONE_CONVERTED) == converting
