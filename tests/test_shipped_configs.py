"""The shipped recipes on COCO and ADE20K in miniature, by our tools.

Two iterations of training, a validation, and a test with TTA; the configs as
they are, only sizes, batch and schedule are miniature.
"""
import json
import math
import re

import pytest
import torch
from helpers import ROOT
from miniature import options, run_tool
from mmengine.config import Config
from published import published_file

from shiftwise_mm.analysis.sparsity import find_tap_sets
from shiftwise_mm.engine.sparsity_report import report_file
from shiftwise_mm.models import ShiftWiseNet
from shiftwise_mm.sparsity import find_targets
from shiftwise_mm.sparsity.updates import random_flags

CONFIGS = sorted(
    path for kind in ('detection', 'segmentation')
    for path in ROOT.glob(f'configs/{kind}/**/*.py')
    if '_base_' not in path.parts)
FAMILIES = [
    'detection/cascade-mask-rcnn_shiftwise-tiny_fpn_ms-3x_coco.py',
    'detection/dino-4scale_shiftwise-tiny_12e_coco.py',
    'segmentation/upernet_shiftwise-tiny_160k_ade20k-512x512.py',
    'segmentation/mask2former_shiftwise-tiny_160k_ade20k-512x512.py',
]
SPARSE = [path for path in CONFIGS if '-sparse-' in path.name]
NANO = [24, 48, 96, 192]
# In mixed precision several steps are made: with the backbone of the demo.
MIXED = {
    FAMILIES[0]: dict(model__neck__in_channels=NANO),
    FAMILIES[2]: dict(model__decode_head__in_channels=NANO,
                      model__auxiliary_head__in_channels=NANO[2]),
}
NOTHING_FOUND = 'The testing results of the whole dataset is empty.'


def scalars_in(work_dir):
    file, = work_dir.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in file.read_text().splitlines()]


def train_and_test(config, base, work):
    """Trains, validates, tests with TTA, and checks what came of it."""
    given = ['--cfg-options', *options(config)]
    log = run_tool('train.py', config, '--work-dir', work / 'train', *given,
                   # Two thirds of the file, which nothing here resumes from.
                   'default_hooks.checkpoint.save_optimizer=False', cwd=base)
    scalars = scalars_in(work / 'train')
    losses = [line['loss'] for line in scalars if 'loss' in line]
    # mmdet's DINO takes the image without objects as well.
    assert len(losses) == (3 if 'dino' in config.name else 2)
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    cfg = Config.fromfile(config)
    names = {'mmseg': ['mIoU', 'aAcc'], 'mmdet': ['coco/bbox_mAP']}[
        cfg.default_scope]
    if cfg.default_scope == 'mmdet' and 'mask' in config.name:
        names.append('coco/segm_mAP')
    # The scores of a detector that has learnt nothing stay below its limit.
    if NOTHING_FOUND not in log or cfg.default_scope == 'mmseg':
        check_metrics(scalars[-1], names)
    checkpoint, = (work / 'train').glob('[ei]*_*.pth')  # epoch or iter
    if cfg.default_scope == 'mmseg':  # at twelve sizes, as ADE20K's TTA is
        given.append('test_dataloader.dataset.indices=1')
    log = run_tool('test.py', config, checkpoint, '--tta', '--work-dir',
                   work / 'test', *given, *no_limits(cfg), cwd=base)
    file, = (work / 'test').glob('*/*.json')
    # RTMDet drops boxes of negative size, which may be all in the beginning.
    if NOTHING_FOUND not in log or 'rtmdet' not in config.name:
        check_metrics(json.loads(file.read_text()), names)
    for checkpoint in (work / 'train').glob('*.pth'):
        checkpoint.unlink()  # of gigabytes, some


def check_metrics(metrics, names):
    """Nobody learns within two iterations; -1 is no result at all."""
    for name in names:
        assert 0 <= metrics[name] <= 100, name


def no_limits(cfg):
    """Options by which a detector gives out whatever it finds."""
    test_cfg = cfg.model.get('test_cfg') or {}
    return [f'model.test_cfg.{path}score_thr=0'
            for path, part in (('', test_cfg),
                               ('rcnn.', test_cfg.get('rcnn') or {}))
            if 'score_thr' in part]


@pytest.mark.parametrize('name', [
    name if 'mask2former' in name  # short, and of no demo's kind
    else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES])
def test_a_family(name, miniature, tmp_path):
    train_and_test(ROOT / 'configs' / name, miniature, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    'config', [c for c in CONFIGS if c not in SPARSE
               and c.relative_to(ROOT / 'configs').as_posix() not in FAMILIES],
    ids=lambda c: f'{c.parent.name}/{c.stem}')
def test_all_others(config, miniature, tmp_path):
    train_and_test(config, miniature, tmp_path)


@pytest.fixture(scope='session')
def sparse_tiny(tmp_path_factory):
    """A sparse SW-tiny as upstream saves it: zeros, and no masks."""
    net = ShiftWiseNet('tiny', norm_out=False)
    generator = torch.Generator().manual_seed(0)
    for target in find_targets(net, 'tap'):
        target.set_flags(random_flags(target.units, target.units // 2,
                                      generator))
        target.layer.remove_masks()
    file = tmp_path_factory.mktemp('weights') / 'SW-tiny.pth'
    torch.save(published_file('v2', net), file)
    return file


@pytest.mark.slow
@pytest.mark.parametrize('config', SPARSE,
                         ids=lambda c: f'{c.parent.name}/{c.stem}')
def test_published_sparse_weights_stay_so(config, sparse_tiny, miniature,
                                          tmp_path):
    """Fine-tuned; without them the config says what it needs."""
    given = ['--work-dir', tmp_path, '--cfg-options', *options(config),
             'default_hooks.checkpoint.save_optimizer=False']
    log = run_tool('train.py', config, *given, cwd=miniature, code=2)
    assert 'needs sparse weights' in log
    run_tool('train.py', config, *given,
             'model.backbone.init_cfg.type=Pretrained',
             f'model.backbone.init_cfg.checkpoint={sparse_tiny}',
             cwd=miniature)
    checkpoint, = tmp_path.glob('[ei]*_*.pth')
    before = find_tap_sets({
        name.replace('LoRAs', 'convs').replace('bn_lora1', 'norm_h'): value
        for name, value in torch.load(sparse_tiny, weights_only=True)[
            'model'].items()}, (51, 49, 47, 13), 4)
    after = report_file(checkpoint).tap_sets
    checkpoint.unlink()
    assert len(after) == len(before) == 27
    for old, new in zip(before, after, strict=True):
        assert new.masked and torch.equal(new.kept, old.kept)
        assert new.kept.float().mean() == pytest.approx(.5, abs=.01)


@pytest.mark.slow
@pytest.mark.parametrize('name', MIXED)
def test_mixed_precision(name, miniature, tmp_path):
    """Several steps without NaN, from the same losses as in fp32."""
    config = ROOT / 'configs' / name
    steps = ['train_cfg.max_epochs=2', 'train_cfg.val_interval=2'] \
        if name.startswith('detection') else [
            'train_cfg.max_iters=4', 'train_cfg.val_interval=4']
    given = ['randomness.seed=0', *options(
        config, model__backbone__arch='nano', **MIXED[name])]
    first = []
    for amp, more in ([], []), (['--amp'], steps):
        work = tmp_path / f'work{len(amp)}'
        log = run_tool('train.py', config, '--work-dir', work, *amp,
                       '--cfg-options', *given, *more, cwd=miniature)
        assert len(re.findall('Mixed precision on the CPU', log)) == len(amp)
        losses = [line['loss'] for line in scalars_in(work) if 'loss' in line]
        assert len(losses) == (4 if amp else 2)
        assert all(map(math.isfinite, losses))
        first.append(losses[0])
    assert first[1] == pytest.approx(first[0], rel=.05)
    assert first[1] != first[0]
