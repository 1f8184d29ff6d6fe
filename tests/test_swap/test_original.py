"""Where the backbone of a config is, and what it gives out."""
import pytest
import torch.nn as nn
from mmengine.config import Config

from shiftwise_mm.registry import MODELS
from shiftwise_mm.swap import OriginalError, SwapError
from shiftwise_mm.swap.original import (
    Level,
    Owner,
    find_owner,
    measure_levels,
)


@MODELS.register_module()
class Halving(nn.Conv2d):
    """A user's backbone of one layer, which gives out a tensor."""

    def __init__(self, in_channels):
        super().__init__(in_channels, 7, 2, stride=2)


RESNET = dict(type='ResNet', depth=18)
DETECTOR = dict(type='RetinaNet', backbone=RESNET, neck=dict(type='FPN'))


def config(**model):
    return Config(dict(model=model, default_scope='mmdet'))


def owner(scope='mmdet', **backbone):
    return Owner(('model', ), dict(backbone=backbone), scope)


@pytest.mark.parametrize(('model', 'path'), [
    (DETECTOR, ('model', )),
    (dict(type='SoftTeacher', detector=DETECTOR), ('model', 'detector')),
    (dict(type='DeepSORT', detector=DETECTOR,
          reid=dict(type='BaseReID', backbone=RESNET)),
     ('model', 'detector')),
    (dict(type='Wrapper', inner=dict(type='Other', detector=DETECTOR)),
     ('model', 'inner', 'detector')),
], ids=['plain', 'semi', 'tracker', 'deep'])
def test_the_owner_is_found(model, path):
    found = find_owner(config(**model))
    assert found.path == path
    assert found.config['backbone'] == RESNET


@pytest.mark.parametrize(('cfg', 'sentence'), [
    (Config(dict(lr=1)), 'the config has no model'),
    (config(type='GLIP'), 'the model GLIP has no backbone'),
    (config(type='Pair', a=DETECTOR, b=DETECTOR),
     'several backbones, in model.a, model.b'),
    (config(type='Detectron2Wrapper', detector=dict(
        type='x', backbone=RESNET)), 'Detectron2'),
    *[(config(type='x', backbone=dict(type=kind)), 'tied: .*' + part)
      for kind, part in [
          ('UNet', 'decoder'), ('ICNet', 'three image sizes'),
          ('BiSeNetV1', 'spatial path'), ('mmseg.BiSeNetV2', 'two branches'),
          ('SSDVGG', 'inside VGG'), ('HourglassNet', 'every stack'),
          ('TridentResNet', 'repeats the batch'),
          ('DetectoRS_ResNet', 'back into the ResNet')]],
])
def test_what_has_no_backbone_of_its_own_is_refused(cfg, sentence):
    with pytest.raises(SwapError, match=sentence):
        find_owner(cfg)


def test_levels_of_a_dilated_resnet():
    levels = measure_levels(owner(
        'mmseg', type='ResNetV1c', depth=18, strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4)))
    assert levels == (Level(64, 4), Level(128, 8), Level(256, 8),
                      Level(512, 8))


def test_levels_of_a_backbone_that_cannot_run_without_memory():
    """Deformable convolutions have no form for meta tensors."""
    levels = measure_levels(owner(
        type='ResNet', depth=50, out_indices=(1, 3), dcn=dict(
            type='DCNv2', deform_groups=1),
        stage_with_dcn=(False, False, False, True)))
    assert levels == (Level(512, 8), Level(2048, 32))


def test_a_single_tensor_is_a_level():
    assert measure_levels(owner(
        type='shiftwise_mm.Halving', in_channels=4)) == (Level(7, 2), )


def test_weights_are_not_fetched():
    assert measure_levels(owner(
        'mmseg', type='ResNet', depth=18, out_indices=(3, ),
        pretrained='open-mmlab://nowhere'))
    assert measure_levels(owner(
        type='ResNet', depth=18, out_indices=(3, ), init_cfg=dict(
            type='Pretrained', checkpoint='/nowhere.pth')))


def test_what_cannot_be_built_here_says_why():
    with pytest.raises(OriginalError, match='NoSuchNet cannot be built here'):
        measure_levels(owner(type='NoSuchNet'))


def test_class_tokens_are_no_levels():
    with pytest.raises(SwapError, match='class tokens'):
        measure_levels(owner(
            'mmseg', type='VisionTransformer', num_layers=1, embed_dims=24,
            num_heads=2, output_cls_token=True, out_indices=[0]))
