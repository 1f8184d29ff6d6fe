"""The shipped recipes on COCO and ADE20K in miniature, by our tools.

Two iterations of training, a validation, and a test with TTA.
"""
import json
import math
import re

import pytest
from helpers import ROOT
from miniature import options, run_tool
from mmengine.config import Config

CONFIGS = sorted(
    path for kind in ('detection', 'segmentation')
    for path in ROOT.glob(f'configs/{kind}/**/*.py')
    if '_base_' not in path.parts)
NANO = [24, 48, 96, 192]
# Of each family the fast one, with the backbone of the demo.
FAMILIES = {
    'detection/cascade-mask-rcnn_shiftwise-tiny_fpn_ms-3x_coco.py': dict(
        model__neck__in_channels=NANO),
    'segmentation/upernet_shiftwise-tiny_160k_ade20k-512x512.py': dict(
        model__decode_head__in_channels=NANO,
        model__auxiliary_head__in_channels=NANO[2]),
}


def scalars_in(work_dir):
    file, = work_dir.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in file.read_text().splitlines()]


def train_and_test(config, base, work, *more, **changes):
    """The training's scalars, and the metrics of the test with TTA."""
    given = ['--cfg-options', *options(config, **changes)]
    run_tool('train.py', config, '--work-dir', work / 'train', *more, *given,
             cwd=base)
    checkpoint, = (work / 'train').glob('*.pth')
    run_tool('test.py', config, checkpoint, '--tta', '--work-dir',
             work / 'test', *given, cwd=base)
    checkpoint.unlink()  # of gigabytes, some
    file, = (work / 'test').glob('*/*.json')
    return scalars_in(work / 'train'), json.loads(file.read_text())


def check(config, scalars, metrics):
    """That what had to happen did."""
    losses = [line['loss'] for line in scalars if 'loss' in line]
    assert len(losses) == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    *_, validation = scalars
    scope = Config.fromfile(config).default_scope
    names = {'mmseg': ['mIoU', 'aAcc'], 'mmdet': ['coco/bbox_mAP']}[scope]
    if scope == 'mmdet' and 'mask' in config.name:
        names.append('coco/segm_mAP')
    for name in names:
        # Nobody learns within two iterations; -1 is no result at all.
        assert 0 <= validation[name] <= 100 and 0 <= metrics[name] <= 100


@pytest.mark.parametrize('name', FAMILIES)
def test_a_family(name, miniature, tmp_path):
    config = ROOT / 'configs' / name
    check(config, *train_and_test(config, miniature, tmp_path,
                                  model__backbone__arch='nano',
                                  **FAMILIES[name]))


@pytest.mark.slow
@pytest.mark.parametrize(
    'config', CONFIGS, ids=[f'{c.parent.name}/{c.stem}' for c in CONFIGS])
def test_all(config, miniature, tmp_path):
    """As they are; only sizes, batch and schedule are miniature."""
    check(config, *train_and_test(config, miniature, tmp_path))


@pytest.mark.parametrize('name', FAMILIES)
def test_mixed_precision(name, miniature, tmp_path):
    """Several steps without NaN, from the same losses as in fp32."""
    config = ROOT / 'configs' / name
    steps = dict(train_cfg__max_epochs=3, train_cfg__val_interval=3) \
        if name.startswith('detection') else dict(
            train_cfg__max_iters=6, train_cfg__val_interval=6)
    given = ['--cfg-options', 'randomness.seed=0', *options(
        config, model__backbone__arch='nano', **FAMILIES[name], **steps)]
    first = []
    for amp in [], ['--amp']:
        work = tmp_path / f'work{len(amp)}'
        log = run_tool('train.py', config, '--work-dir', work, *amp, *given,
                       cwd=miniature)
        assert len(re.findall('Mixed precision on the CPU', log)) == len(amp)
        losses = [line['loss'] for line in scalars_in(work) if 'loss' in line]
        assert len(losses) == 6 and all(map(math.isfinite, losses))
        first.append(losses[0])
    assert first[1] == pytest.approx(first[0], rel=.05)
    assert first[1] != first[0]
