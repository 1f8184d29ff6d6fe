"""Configs that MMDetection and MMSegmentation ship, of different kinds."""
import re

import pytest
from helpers import ROOT
from mmengine.utils import get_installed_path

from shiftwise_mm.stack import ONEDL, find_stack
from shiftwise_mm.swap.sweep import list_configs, try_swap

TABLE = ROOT / 'docs/swaps.md'

TEN = {
    'one stage, neck from level 1':
        'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py',
    'cascade with masks':
        'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    'neck backwards': 'mmdet::yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py',
    'DETR': 'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    'no neck': 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
    'teacher and student':
        'mmdet::soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_'
        'semi-0.1-coco.py',
    'tracker': 'mmdet::qdtrack/qdtrack_faster-rcnn_r50_fpn_4e_base.py',
    'dilated': 'mmseg::deeplabv3plus/deeplabv3plus_r18-d8_4xb2-80k_'
               'cityscapes-512x1024.py',
    'joint pyramid': 'mmseg::fastfcn/fastfcn_r50-d32_jpu_psp_4xb2-80k_'
                     'cityscapes-512x1024.py',
    'kernels': 'mmseg::knet/knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-'
               '512x512.py',
}


# Shipped by the forks only, beside all that OpenMMLab's own releases have.
OF_THE_FORKS = {
    'mmdet::clrnet/clrnet.py': ('refused', 'CLRFPN takes'),
    'mmdet::mm_grounding_dino/grounding_dino_swin-b_pretrain_all.py':
        ('original', 'fairscale'),
    'mmdet::mm_grounding_dino/grounding_dino_swin-b_pretrain_obj365_goldg_'
    'v3det.py': ('original', 'fairscale'),
    'mmdet::mm_grounding_dino/grounding_dino_swin-l_pretrain_obj365_goldg.py':
        ('original', 'fairscale'),
    'mmseg::unet/unet-s5-d16_fcn_4xb4-160k_hsidrive-192x384.py':
        ('refused', 'its decoder'),
}


@pytest.mark.parametrize('kind', TEN)
def test_ten_kinds(kind):
    row = try_swap(TEN[kind], 'shiftwise-nano', {}, sizes=(64, 128))
    assert row['outcome'] == 'checked', row['reason']


@pytest.mark.parametrize(('config', 'reason'), [
    ('mmdet::ssd/ssd300_coco.py', 'inside VGG'),
    ('mmdet::retinanet/retinanet_tta.py', 'no model'),
    ('mmdet::faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco.py',
     'shared head'),
    ('mmseg::unet/unet-s5-d16_fcn_4xb4-40k_drive-64x64.py', 'its decoder'),
    ('mmseg::vit/vit_deit-b16_mln_upernet_8xb2-160k_ade20k-512x512.py',
     '16, 16, 16, 16'),
])
def test_refused_kinds(config, reason):
    row = try_swap(config, 'shiftwise-nano', {})
    assert row['outcome'] == 'refused'
    assert reason in row['reason']


def table():
    """Outcome of each config by the committed report."""
    return dict(re.findall(r'^\| (mm\w+::\S+\.py) \| (\w+)[ *]* \|',
                           TABLE.read_text(), re.MULTILINE))


def test_the_table_has_all_configs_and_no_failure():
    """It was made on OpenMMLab's own releases."""
    outcomes = table()
    shipped = [*list_configs('mmdet'), *list_configs('mmseg')]
    if find_stack() is ONEDL:
        assert OF_THE_FORKS.keys() <= set(shipped)
        shipped = [name for name in shipped if name not in OF_THE_FORKS]
    assert list(outcomes) == shipped
    counts = {outcome: list(outcomes.values()).count(outcome)
              for outcome in ('checked', 'built', 'original', 'failed')}
    assert not counts['failed']
    assert counts['checked'] >= .9 * (counts['checked'] + counts['built'])


@pytest.mark.skipif(find_stack() is not ONEDL,
                    reason='only the forks ship these configs')
@pytest.mark.parametrize('config', OF_THE_FORKS)
def test_configs_of_the_forks_alone(config):
    row = try_swap(config, 'shiftwise-nano', {})
    outcome, reason = OF_THE_FORKS[config]
    assert row['outcome'] == outcome and reason in row['reason']


def one_a_folder():
    """The first that was checked, else the first."""
    chosen = {}
    for config, outcome in table().items():
        folder = config.partition('/')[0]
        if folder not in chosen or (outcome == 'checked' !=
                                    chosen[folder][1]):
            chosen[folder] = config, outcome
    return chosen


@pytest.mark.slow
@pytest.mark.parametrize('folder', one_a_folder())
def test_one_a_folder(folder, monkeypatch):
    config, outcome = one_a_folder()[folder]
    monkeypatch.chdir(f'{get_installed_path(folder.partition("::")[0])}/.mim')
    row = try_swap(config, 'shiftwise-nano', {})
    assert row['outcome'] == outcome, row['reason']
