"""What a swap changes, by hand, for models of different kinds."""
import copy

import pytest
from mmengine.config import Config

from shiftwise_mm.swap import SwapError, plan_swap, swap_backbone
from shiftwise_mm.swap.original import Level

DETECTOR = dict(
    type='RetinaNet',
    backbone=dict(type='ResNet', depth=18, frozen_stages=1, norm_eval=True,
                  init_cfg=dict(type='Pretrained', checkpoint='resnet.pth')),
    neck=dict(type='FPN', in_channels=[64, 128, 256, 512], start_level=1,
              out_channels=256))
DILATED = dict(
    type='EncoderDecoder', pretrained='open-mmlab://resnet18_v1c',
    backbone=dict(type='ResNetV1c', depth=18, strides=(1, 2, 1, 1),
                  dilations=(1, 1, 2, 4),
                  norm_cfg=dict(type='SyncBN', requires_grad=True)),
    decode_head=dict(type='PSPHead', in_channels=512, in_index=3),
    auxiliary_head=dict(type='FCNHead', in_channels=256, in_index=2))
HOOK = dict(type='shiftwise_mm.ConvertPretrainedHook')
# Of shiftwise-nano: 24, 48, 96, 192.


def config(model, scope='mmdet', **more):
    return Config(copy.deepcopy(dict(
        model=model, default_scope=scope, **more)))


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / 'weights.pth'
    path.touch()
    return str(path)


def test_a_neck_that_starts_later():
    cfg = config(DETECTOR)
    new = swap_backbone(cfg, 'shiftwise-nano')
    assert new.model.backbone == dict(
        type='shiftwise_mm.ShiftWiseNet', arch='nano', out_indices=(1, 2, 3))
    assert new.model.neck == dict(
        type='FPN', in_channels=[48, 96, 192], start_level=0,
        out_channels=256)
    assert new.custom_hooks == [HOOK]
    assert cfg.to_dict() == config(DETECTOR).to_dict()  # a copy was changed


def test_a_dilated_segmentor_keeps_its_output_stride():
    swap = plan_swap(config(DILATED, 'mmseg'), 'shiftwise-nano')
    assert swap.levels == (Level(96, 8), Level(192, 8))
    new = swap.apply(config(DILATED, 'mmseg'))
    assert new.model.backbone == dict(
        type='shiftwise_mm.ShiftWiseNet', arch='nano', strides=(4, 2, 1, 1),
        out_indices=(2, 3), norm_cfg=dict(type='SyncBN'))
    assert new.model.decode_head.in_channels == 192
    assert new.model.decode_head.in_index == 1
    assert new.model.auxiliary_head.in_channels == 96
    assert new.model.auxiliary_head.in_index == 0
    assert new.model.pretrained is None


@pytest.mark.parametrize('outer', ['SoftTeacher', 'DeepSORT'])
def test_a_nested_detector(outer):
    reid = dict(type='BaseReID', backbone=dict(type='ResNet', depth=50))
    new = swap_backbone(config(dict(type=outer, detector=DETECTOR,
                                    reid=reid)), 'shiftwise-nano')
    assert new.model.detector.backbone.out_indices == (1, 2, 3)
    assert new.model.detector.neck.in_channels == [48, 96, 192]
    assert new.model.reid == reid
    assert 'neck' not in new.model


def test_weights_of_the_original_are_forgotten():
    cfg = config(dict(DETECTOR, init_cfg=dict(
        type='Pretrained', checkpoint='retinanet.pth')),
        load_from='retinanet.pth')
    new = swap_backbone(cfg, 'shiftwise-nano')
    assert new.load_from is None
    assert new.model.init_cfg is None
    # Nothing is frozen that was never trained.
    assert not {'init_cfg', 'frozen_stages', 'norm_eval'} & set(
        new.model.backbone)


def test_weights_of_the_new_one_are_converted_and_frozen_alike(weights):
    check = dict(type='NumClassCheckHook')
    new = swap_backbone(config(DETECTOR, custom_hooks=[check]),
                        'shiftwise-nano', pretrained=weights)
    assert new.model.backbone.init_cfg == dict(
        type='Pretrained', checkpoint=weights)
    assert new.model.backbone.frozen_stages == 1
    assert new.model.backbone.norm_eval
    assert new.custom_hooks == [check, HOOK]
    again = swap_backbone(new, 'shiftwise-nano')
    assert again.custom_hooks == new.custom_hooks


def test_weights_may_be_a_url_but_not_a_missing_file():
    url = 'https://example.com/weights.pth'
    new = swap_backbone(config(DETECTOR), 'shiftwise-nano', pretrained=url)
    assert new.model.backbone.init_cfg.checkpoint == url
    with pytest.raises(SwapError, match='no file nowhere.pth'):
        plan_swap(config(DETECTOR), 'shiftwise-nano',
                  pretrained='nowhere.pth')


@pytest.mark.parametrize(('options', 'expected'), [
    (dict(with_cp=True), dict(with_cp=True)),
    (dict(in_channels=4), dict(in_channels=4)),
    (dict(norm_cfg=dict(type='BN', requires_grad=True)), {}),
    (dict(norm_cfg=dict(type='SyncBN')),
     dict(norm_cfg=dict(type='SyncBN'))),
], ids=lambda value: ','.join(value))
def test_options_that_stay(options, expected):
    model = copy.deepcopy(DETECTOR)
    model['backbone'].update(options)
    backbone = swap_backbone(config(model), 'shiftwise-nano').model.backbone
    assert backbone == dict(
        type='shiftwise_mm.ShiftWiseNet', arch='nano', out_indices=(1, 2, 3),
        **expected)


def test_a_convnext_has_no_batch_norms_to_synchronise():
    model = copy.deepcopy(DETECTOR)
    model['backbone']['norm_cfg'] = dict(type='SyncBN')
    assert 'norm_cfg' not in swap_backbone(
        config(model), 'convnext-tiny').model.backbone


def test_layer_wise_decay_asks_our_backbone():
    cfg = config(DETECTOR, optim_wrapper=dict(
        type='AmpOptimWrapper',
        constructor='LearningRateDecayOptimizerConstructor',
        paramwise_cfg=dict(decay_rate=.7, decay_type='stage_wise',
                           num_layers=6)))
    wrapper = swap_backbone(cfg, 'shiftwise-nano').optim_wrapper
    assert wrapper == dict(
        type='AmpOptimWrapper',
        constructor='shiftwise_mm.LayerDecayOptimWrapperConstructor',
        paramwise_cfg=dict(decay_rate=.7, decay_type='stage_wise'))


def test_what_cannot_be_is_refused():
    with pytest.raises(SwapError, match='backbone must be one of'):
        plan_swap(config(DETECTOR), 'resnet50')
    with pytest.raises(SwapError, match='UNet holds its decoder'):
        plan_swap(config(dict(type='EncoderDecoder', backbone=dict(
            type='UNet'))), 'shiftwise-nano')
    plain = copy.deepcopy(DILATED)
    plain['backbone'] = dict(
        type='VisionTransformer', num_layers=1, embed_dims=24, num_heads=2,
        img_size=(64, 64), with_cls_token=False, out_indices=[0])
    plain['decode_head'].update(in_channels=24, in_index=0)
    plain['auxiliary_head'].update(in_channels=24, in_index=0)
    swap = plan_swap(config(plain, 'mmseg'), 'shiftwise-nano')
    assert swap.levels == (Level(192, 16), )  # one stride is possible
