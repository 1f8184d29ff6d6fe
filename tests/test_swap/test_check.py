"""The check finds what is wrong; mini networks at 64 pixels."""
import logging
import random
import re

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger

from shiftwise_mm.swap import plan_swap, read_config
from shiftwise_mm.swap.check import check_swap

PSPNET = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'


@pytest.fixture(scope='module')
def pspnet():
    """A dilated segmentor, swapped, and its plan."""
    cfg = read_config(PSPNET)
    swap = plan_swap(cfg, 'shiftwise-nano')
    return swap.apply(cfg), swap


def broken(cfg, **options):
    cfg = Config(cfg.to_dict())
    cfg.merge_from_dict(options)
    return cfg


def check(cfg, swap):
    return check_swap(cfg, swap, sizes=(64, ))


def test_a_right_swap_passes(pspnet):
    report = check(*pspnet)
    assert report.passed and not report.problem
    assert [(level.channels, level.stride) for level in report.levels] == [
        (96, 8), (192, 8)]
    assert report.losses['loss'] > 0
    assert 'decode.loss_ce' in report.losses
    assert f'{report.parameters} parameters' in report.describe()


def test_the_original_can_be_checked_too():
    report = check(read_config(PSPNET), None)
    assert report.passed
    assert not report.levels  # of none of our backbones


@pytest.mark.parametrize(('options', 'stage', 'problem'), [
    ({'model.backbone.strides': (4, 2, 2, 2)}, 'train',
     r'gives .*stride=16\), .*stride=32.*expected .*stride=8'),
    ({'model.backbone.strides': (4, 1, 1, 1)}, 'train', 'stride=4'),
    ({'model.backbone.arch': 'tiny'}, 'train', 'channels'),
    ({'model.decode_head.in_channels': 190}, 'train', '190 channels'),
    ({'model.auxiliary_head.in_index': 1}, 'train', '96 channels'),
    # The output norm of stage 1 is there, and nothing is made of it.
    ({'model.backbone.out_indices': (1, 2, 3), 'model.decode_head.in_index': 2,
      'model.auxiliary_head.in_index': 1}, 'train',
     '2 parameters of the backbone get no gradient, such as norm1.weight'),
    # Stage 4 is not trained.
    ({'model.backbone.out_indices': (1, 2), 'model.decode_head.in_channels':
      96, 'model.auxiliary_head.in_channels': 48}, 'train',
     r'get no gradient, such as downsample_layers\.3'),
    ({'model.decode_head.loss_decode.loss_weight': float('nan')}, 'train',
     'not finite: loss'),
    ({'model.backbone.arch': 'huge'}, 'build', 'huge'),
    ({'model.test_cfg': dict(mode='slide')}, 'predict', 'stride'),
    ({'model.backbone': dict(_delete_=True, type='ResNetV1c', depth=18,
                             out_indices=(2, 3))}, 'build',
     'no backbone of shiftwise_mm'),
], ids=lambda value: ','.join(value) if isinstance(value, dict) else '')
def test_a_wrong_one_does_not(pspnet, options, stage, problem):
    cfg, swap = pspnet
    report = check(broken(cfg, **options), swap)
    assert not report.passed
    assert report.stage == stage
    assert re.search(problem, report.problem), report.problem
    assert report.describe() == f'{stage}: {report.problem}'


def test_a_larger_size_is_tried_where_a_small_one_does_not_do():
    """A window of 49 places at an output stride of 8 asks for 392 pixels."""
    cfg = read_config(
        'mmseg::mobilenet_v3/mobilenet-v3-d8_lraspp_4xb4-320k_'
        'cityscapes-512x1024.py')
    swap = plan_swap(cfg, 'shiftwise-nano')
    cfg = swap.apply(cfg)
    assert 'too small' in check(cfg, swap).problem
    report = check_swap(cfg, swap, sizes=(64, 416))
    assert report.passed and report.size == 416


def test_weights_that_are_wrong_are_reported(pspnet, tmp_path):
    torch.save({'state_dict': {'none.weight': torch.zeros(1)}},
               tmp_path / 'wrong.pth')
    cfg, swap = pspnet
    report = check(broken(cfg, **{'model.backbone.init_cfg': dict(
        type='Pretrained', checkpoint=str(tmp_path / 'wrong.pth'))}), swap)
    assert report.stage == 'build' and report.problem


def test_weights_that_are_right_are_loaded(pspnet, tmp_path):
    from shiftwise_mm.registry import MODELS
    cfg, swap = pspnet
    backbone = MODELS.build(dict(type='shiftwise_mm.ShiftWiseNet',
                                 arch='nano'))
    torch.save(backbone.state_dict(), tmp_path / 'right.pth')
    report = check(broken(cfg, **{'model.backbone.init_cfg': dict(
        type='Pretrained', checkpoint=str(tmp_path / 'right.pth'))}), swap)
    assert report.passed, report.problem


@pytest.mark.parametrize('known', [dict(epoch=7), {}])
def test_nothing_global_is_changed(known, pspnet):
    told = MessageHub.get_current_instance().runtime_info
    told.clear()
    told.update(known)
    logger = MMLogger.get_current_instance()
    logger.setLevel(logging.INFO)
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    expected = torch.rand(2), random.random(), np.random.rand()
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    cfg, swap = pspnet
    before = cfg.to_dict()
    assert check(cfg, swap).passed
    assert cfg.to_dict() == before
    assert torch.equal(torch.rand(2), expected[0])
    assert (random.random(), np.random.rand()) == expected[1:]
    assert dict(told) == known
    assert logger.level == logging.INFO
