"""tools/train.py as its user runs it: classes, boxes and segments."""
import json
import os
import re
from pathlib import Path

import mmdet
import mmseg
import numpy as np
import pytest
import torch
from helpers import ROOT, make_image_folder, run_python
from mmengine.config import Config
from processes import run_forked, run_fresh
from segmentor import make_segmentor

from shiftwise_mm.datasets import make_shapes_dataset
from shiftwise_mm.engine import training
from shiftwise_mm.engine.training import InputError, config_for_training
from shiftwise_mm.stack import ONEDL, find_stack

TOOL = ROOT / 'tools/train.py'
CLASSIFIER = ROOT / 'configs/classification/shiftwise-tiny_in1k-224.py'
DETECTOR = ROOT / 'configs/demo/rtmdet_shiftwise-nano_demo_shapes.py'
CLASSES = dict(a=3, b=2, c=3)


def train(config, *args, cwd, tool=TOOL, code=0, run=run_forked):
    """What a run prints."""
    done = run(tool, config, *args, cwd=cwd, merge=True,
               env={**os.environ, 'PYTHONPATH': ''})
    assert done.returncode == code, done.stdout[-3000:]
    return done.stdout


def losses_in(work_dir):
    """The loss of each iteration of the last run."""
    *_, file = sorted(work_dir.glob('*/vis_data/scalars.json'))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [line['loss'] for line in lines if 'loss' in line]


@pytest.fixture(scope='module')
def segmentor(tmp_path_factory):
    return make_segmentor(tmp_path_factory.mktemp('segmentor'))


@pytest.fixture(scope='module')
def trained(segmentor, tmp_path_factory):
    """The work dir of four iterations."""
    work = tmp_path_factory.mktemp('trained')
    train('config.py', '--work-dir', work, cwd=segmentor, run=run_fresh)
    return work


def weights_in(file):
    return torch.load(file, map_location='cpu')['state_dict']


def same_weights(one, other):
    one, other = weights_in(one), weights_in(other)
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], value) for name, value in other.items())


def test_a_segmentor_as_by_mmsegs_own_tool(segmentor, trained, tmp_path):
    theirs = Path(mmseg.__file__).parent / '.mim/tools/train.py'
    if find_stack() is ONEDL:  # whose mmengine finds no base `mmseg::`
        wrapped = tmp_path / 'train.py'
        wrapped.write_text('import runpy, shiftwise_mm\n'
                           f'runpy.run_path({str(theirs)!r}, '
                           "run_name='__main__')")
        theirs = wrapped
    log = train('config.py', '--work-dir', tmp_path, cwd=segmentor,
                tool=theirs)
    assert 'mIoU' in log
    assert same_weights(tmp_path / 'iter_4.pth', trained / 'iter_4.pth')
    assert losses_in(tmp_path) == losses_in(trained)
    assert len(losses_in(trained)) == 4


@pytest.mark.parametrize('resume', [
    pytest.param(['--resume'], marks=pytest.mark.slow), ['--resume', 'auto'],
    pytest.param(['--resume', 'PATH'], marks=pytest.mark.slow)], ids=' '.join)
def test_resume(resume, segmentor, trained, tmp_path):
    """Two iterations and two more are four; the momentum goes on too."""
    train('config.py', '--work-dir', tmp_path, '--cfg-options',
          'train_cfg.max_iters=2', cwd=segmentor)
    where = tmp_path
    if 'PATH' in resume:
        resume, where = ['--resume', tmp_path / 'iter_2.pth'], tmp_path / 'b'
    log = train('config.py', '--work-dir', where, *resume, cwd=segmentor)
    assert 'resumed epoch: 0, iter: 2' in log
    assert losses_in(where) == losses_in(trained)[2:]
    assert same_weights(where / 'iter_4.pth', trained / 'iter_4.pth')


def test_resume_auto_starts_where_there_is_nothing(segmentor, trained,
                                                   tmp_path):
    train('config.py', '--work-dir', tmp_path, '--resume', cwd=segmentor)
    assert losses_in(tmp_path) == losses_in(trained)


def test_amp(segmentor, trained, tmp_path):
    log = train('config.py', '--work-dir', tmp_path, '--amp', cwd=segmentor)
    assert log.count('Mixed precision on the CPU') == 1
    mixed, precise = losses_in(tmp_path), losses_in(trained)
    assert mixed != precise
    np.testing.assert_allclose(mixed, precise, rtol=.02)
    cfg = Config.fromfile(tmp_path / 'config.py')
    assert cfg.optim_wrapper.type == 'shiftwise_mm.CpuAmpOptimWrapper'


def test_auto_scale_lr(segmentor, tmp_path):
    """The batch is 4, the recipe for 16: a quarter of the learning rate."""
    train('config.py', '--work-dir', tmp_path, '--auto-scale-lr',
          '--cfg-options', 'auto_scale_lr.base_batch_size=16',
          'train_cfg.max_iters=2', cwd=segmentor)
    optimizer = torch.load(tmp_path / 'iter_2.pth')['optimizer']
    assert {group['lr'] for group in optimizer['param_groups']} == {.5 / 4}


def test_sync_bn_is_reverted_in_one_process(segmentor, trained):
    log = next(trained.glob('*/*.log')).read_text()
    assert log.count('automatically reverted to BatchNormXd') == 1


@pytest.mark.slow  # as the segmentor above, in four times its time
def test_a_detector_as_by_mmdets_own_tool(tmp_path):
    make_shapes_dataset(tmp_path / 'data/shapes', num_train=4, num_val=4,
                        image_size=(128, 96))
    theirs = Path(mmdet.__file__).parent / '.mim/tools/train.py'
    for name, tool, run in (('ours', TOOL, run_fresh),
                            ('theirs', theirs, run_forked)):
        log = train(DETECTOR, '--work-dir', tmp_path / name, '--cfg-options',
                    'train_cfg.max_iters=2', 'train_cfg.val_interval=2',
                    'default_hooks.checkpoint.interval=2', cwd=tmp_path,
                    tool=tool, run=run)
        assert 'bbox_mAP' in log
    assert same_weights(tmp_path / 'ours/iter_2.pth',
                        tmp_path / 'theirs/iter_2.pth')


CLASSIFICATION = f"""
_base_ = {str(CLASSIFIER)!r}
model = dict(backbone=dict(arch='nano', layer_scale_init_value=1.0),
             head=dict(in_channels=192, num_classes=3))
train_dataloader = dict(
    batch_size=3, num_workers=0,
    sampler=dict(type='mmengine.DefaultSampler', shuffle=True),
    dataset=dict(type='shiftwise_mm.ImageFolder', data_root='data',
                 pipeline=_base_.test_pipeline))
val_dataloader = test_dataloader = dict(
    num_workers=0, persistent_workers=False, batch_size=3,
    dataset=dict(data_root='data'))
val_evaluator = test_evaluator = dict(topk=(1, ))
train_cfg = dict(by_epoch=True, max_epochs=1)
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3))
"""


def test_a_classifier(tmp_path):
    """A config without a scope, made a recipe as its head says."""
    make_image_folder(tmp_path / 'data', CLASSES)
    (tmp_path / 'mine.py').write_text(CLASSIFICATION)
    log = train('mine.py', cwd=tmp_path)
    assert 'accuracy/top1' in log
    assert (tmp_path / 'work_dirs/mine/epoch_1.pth').is_file()


@pytest.mark.parametrize('name, text, words', [
    ('gone.py', None, 'gone.py.*FileNotFoundError'),
    ('broken.py', 'model = dict(', 'broken.py.*SyntaxError'),
    ('empty.py', 'model = dict()',
     'empty.py has no train_dataloader, train_cfg, optim_wrapper'),
])
def test_a_bad_config_is_one_line(name, text, words, tmp_path):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        config_for_training(str(tmp_path / name))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('options, words', [
    (dict(resume='gone.pth'), 'checkpoint gone.pth does not exist'),
    (dict(auto_scale_lr=True), 'has no auto_scale_lr.base_batch_size'),
    (dict(amp=True, options={'optim_wrapper.type': 'ApexOptimWrapper'}),
     "optim_wrapper.type='ApexOptimWrapper'.*replaces only OptimWrapper"),
    (dict(options={'model.type.x': 1}), 'config.py cannot be read'),
], ids=str)
def test_bad_options_are_one_line(options, words, segmentor):
    with pytest.raises(InputError, match=words):
        config_for_training(str(segmentor / 'config.py'), **options)


def test_the_work_dir_is_that_of_the_option_config_or_name(segmentor):
    config = str(segmentor / 'config.py')
    assert config_for_training(config).work_dir == 'work_dirs/config'
    options = dict(options=dict(work_dir='there'))
    assert config_for_training(config, **options).work_dir == 'there'
    options['work_dir'] = 'here'
    assert config_for_training(config, **options).work_dir == 'here'


def test_resume_reaches_the_runner(segmentor, trained):
    config = str(segmentor / 'config.py')
    options = dict(load_from='weights.pth')
    cfg = config_for_training(config, options=options)
    assert not cfg.resume and cfg.load_from == 'weights.pth'
    cfg = config_for_training(config, options=options, resume='auto')
    assert cfg.resume and cfg.load_from is None
    file = str(trained / 'iter_2.pth')
    cfg = config_for_training(config, options=options, resume=file)
    assert cfg.resume and cfg.load_from == file
    # A URL is mmengine's to fetch.
    assert config_for_training(config, resume='https://x/y.pth').resume


def test_the_wrapper_of_mixed_precision(segmentor, monkeypatch):
    config = str(segmentor / 'config.py')
    plain = dict(type='OptimWrapper', clip_grad=dict(max_norm=1.))
    amp = dict(type='AmpOptimWrapper', loss_scale=512., dtype='float16')

    def wrapper(given):
        cfg = config_for_training(config, amp=True, options={
            f'optim_wrapper.{name}': value for name, value in given.items()})
        found = cfg.optim_wrapper.to_dict()
        assert found.pop('optimizer')['type'] == 'SGD'
        return found

    on_cpu = dict(type='shiftwise_mm.CpuAmpOptimWrapper')
    assert wrapper(plain) == {**plain, **on_cpu}
    assert wrapper(amp) == on_cpu == wrapper(on_cpu)
    monkeypatch.setattr(training, 'get_device', lambda: 'cuda')
    dynamic = dict(type='AmpOptimWrapper', loss_scale='dynamic')
    assert wrapper(plain) == {**plain, **dynamic}
    assert wrapper(amp) == amp
    assert wrapper(on_cpu) == dynamic


def test_what_does_not_fit_is_one_line(segmentor, trained, tmp_path):
    """Before the first iteration; all in one process."""
    (tmp_path / 'text.pth').write_text('not a checkpoint')
    torch.save(weights_in(trained / 'iter_2.pth'), tmp_path / 'weights.pth')
    cases = [
        (['--cfg-options', 'train_dataloader.dataset.data_root=gone'],
         r'^train: config\.py: FileNotFoundError.*gone'),
        (['--cfg-options', 'model.backbone.type=shiftwise_mm.Gone'],
         r'^train: config\.py: .*Gone'),
        (['--cfg-options', 'model.backbone.kernel_sizes=3'],
         'kernel_sizes.*3'),
        (['--cfg-options', 'optim_wrapper.type=Gone'], 'Gone'),
        (['--cfg-options', 'val_evaluator.type=Gone'], 'Gone'),
        (['--cfg-options', 'val_cfg=None'], 'val_dataloader.*None'),
        (['--cfg-options', 'load_from=gone.pth'],
         '^train: checkpoint gone.pth cannot be loaded'),
        (['--cfg-options', 'model.backbone.init_cfg.type=Pretrained',
          'model.backbone.init_cfg.checkpoint=gone.pth'], 'gone.pth'),
        (['--resume', tmp_path / 'text.pth'],
         '^train: checkpoint .*text.pth cannot be loaded: .*not safe'),
        (['--resume', tmp_path / 'weights.pth'],
         '^train: training cannot go on from .*weights.pth: KeyError'),
        (['--launcher', 'pytorch'],
         '^train: launcher pytorch needs the environment variable RANK'),
    ]
    code = f"""
        import runpy
        main = runpy.run_path({str(TOOL)!r})['main']
        for args in {[list(map(str, args)) for args, _ in cases]!r}:
            try:
                main(['config.py', '--work-dir', {str(tmp_path)!r}, *args])
            except SystemExit as error:
                print('code', error.code, flush=True)
    """
    out = run_python(code, segmentor, stderr=True, run=run_forked)
    lines = [line for line in out if line.startswith(('train: ', 'code '))]
    assert lines[1::2] == ['code 2'] * len(cases)
    for line, (_, words) in zip(lines[::2], cases, strict=True):
        assert re.search(words, line), (line, words)


def test_an_error_of_training_keeps_its_traceback(segmentor, tmp_path):
    """Not the user's input: the loss is asked for a class that is not."""
    log = train('config.py', '--work-dir', tmp_path, '--cfg-options',
                'model.decode_head.num_classes=2',
                'model.decode_head.out_channels=2', cwd=segmentor, code=1)
    assert 'Traceback' in log and 'IndexError' in log


def test_bad_options_of_the_command_line(tmp_path):
    log = train('x.py', '--launcher', 'gone', cwd=tmp_path, code=2)
    assert 'invalid choice' in log
    log = train('x.py', cwd=tmp_path, code=2)
    assert log.splitlines()[-1].startswith('train: config x.py cannot be')
    assert not list(tmp_path.iterdir())
