"""The layer in networks of mmdet: as a plugin, and through conv_cfg."""
from importlib import import_module

import pytest
import torch
import torch.nn as nn
from helpers import ROOT, assert_near
from mmcv.cnn import ConvModule, DepthwiseSeparableConvModule, build_conv_layer
from mmdet.registry import MODELS
from mmengine.config import Config

from shiftwise_mm.models import ShiftWiseConv2d

CONFIGS = ROOT / 'configs/detection'
PLUGINS = CONFIGS / 'faster-rcnn_r50-shiftwise-plugins_fpn_1x_coco.py'
CONV_CFG = CONFIGS / 'rtmdet-tiny_cspnext-shiftwise_300e_coco.py'


def layers_of(module):
    return [m for m in module.modules() if isinstance(m, ShiftWiseConv2d)]


def detector(path, **options):
    """A detector of a config, with other options of its model."""
    import_module('mmdet.utils').register_all_modules()
    cfg = Config.fromfile(path)
    cfg.merge_from_dict({f'model.{k}': v for k, v in options.items()})
    return MODELS.build(cfg.model), cfg


def sample(boxes=((4., 6., 40., 50.), (20., 8., 60., 44.))):
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData
    data = DetDataSample(metainfo=dict(
        img_shape=(64, 64), pad_shape=(64, 64), batch_input_shape=(64, 64),
        scale_factor=(1., 1.), ori_shape=(64, 64)))
    data.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes), labels=torch.tensor([3, 7]))
    return data


def train(model, steps, lr):
    """The loss of each step, on one batch."""
    from mmengine.model.utils import revert_sync_batchnorm
    torch.manual_seed(0)
    model = revert_sync_batchnorm(model).train()
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr)
    images, losses = torch.rand(2, 3, 64, 64), []
    for _ in range(steps):
        loss, _ = model.parse_losses(
            model.loss(images, [sample(), sample()]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, losses


def test_the_plugin_trains_in_a_resnet():
    model, _ = detector(PLUGINS, **{
        'backbone.init_cfg': None, 'backbone.base_channels': 8,
        'neck.in_channels': [32, 64, 128, 256], 'neck.out_channels': 16,
        'rpn_head.in_channels': 16, 'rpn_head.feat_channels': 16,
        'roi_head.bbox_roi_extractor.out_channels': 16,
        'roi_head.bbox_head.in_channels': 16,
        'roi_head.bbox_head.fc_out_channels': 32})
    layers = layers_of(model.backbone)
    assert len(layers) == 4 + 6 + 3  # each bottleneck of stages 2 to 4
    assert {x.in_channels for x in layers} == {16, 32, 64}
    before = [x.merged_weight().detach().clone() for x in layers]
    model.init_weights()
    model, losses = train(model, 3, 1e-3)
    assert all(map(torch.isfinite, map(torch.tensor, losses)))
    assert losses[-1] < losses[0]
    for layer, weight in zip(layers_of(model.backbone), before, strict=True):
        assert not torch.equal(layer.merged_weight(), weight)


def test_the_plugin_leaves_a_pretrained_resnet_as_it_was(tmp_path):
    from mmdet.models import ResNet
    torch.manual_seed(0)
    plain = ResNet(50)
    plain.init_weights()
    torch.save(plain.state_dict(), tmp_path / 'resnet50.pth')
    model, _ = detector(PLUGINS, **{'backbone.init_cfg': dict(
        type='Pretrained', checkpoint=str(tmp_path / 'resnet50.pth'))})
    model.backbone.init_weights()
    plain.eval()
    model.eval()
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        for ours, theirs in zip(model.backbone(x), plain(x), strict=True):
            assert_near(ours, theirs)


def test_conv_cfg_trains_in_cspnext():
    model, cfg = detector(CONV_CFG)
    plain = MODELS.build({**cfg.model.backbone, 'conv_cfg': None})
    depthwise = {
        name for name, module in plain.named_modules()
        if isinstance(module, nn.Conv2d) and module.groups > 1
    }
    ours = {name for name, module in model.backbone.named_modules()
            if isinstance(module, ShiftWiseConv2d)}
    assert ours == depthwise and len(ours) == 4
    for layer in layers_of(model.backbone):
        assert layer.kernel_size == (51, 51) and layer.small_kernel == 3
    before = [x.merged_weight().detach().clone()
              for x in layers_of(model.backbone)]
    model, losses = train(model, 3, 1e-3)
    assert losses[-1] < losses[0]
    for layer, weight in zip(layers_of(model.backbone), before, strict=True):
        assert not torch.equal(layer.merged_weight(), weight)


@pytest.mark.parametrize('args, options, taken', [
    ((6, 6, 5), dict(padding=2, groups=6), True),
    ((6, 6, (3, 3)), dict(padding=(1, 1), groups=6, bias=False), True),
    ((6, 6, 5), dict(padding='same', groups=6), True),
    ((6, 6, 5, 1, 2, 1, 6), dict(), True),
    ((6, 6, 5), dict(padding=2), False),  # dense
    ((6, 6, 5), dict(padding=2, groups=3), False),
    ((6, 12, 5), dict(padding=2, groups=6), False),
    ((6, 6, 5), dict(padding=2, groups=6, stride=2), False),
    ((6, 6, 3), dict(padding=2, groups=6, dilation=2), False),
    ((6, 6, 5), dict(padding=0, groups=6), False),  # shrinks
    ((6, 6, (3, 5)), dict(padding=(1, 2), groups=6), False),
    ((6, 6, 1), dict(groups=6), False),
    ((1, 1, 3), dict(padding=1), False),  # dense as well
])
def test_which_convolutions_are_replaced(args, options, taken):
    cfg = dict(type='shiftwise_mm.DepthwiseToShiftWise', large_kernel=13,
               small_kernel=5, num_paths=2, num_reps=2, ghost_ratio=.25,
               norm_cfg=dict(type='BN', momentum=.3), form='strip')
    layer = build_conv_layer(cfg, *args, **options)
    plain = nn.Conv2d(*args, **options)
    assert isinstance(layer, ShiftWiseConv2d) == taken
    x = torch.rand(2, args[0], 11, 9)
    assert layer(x).shape == plain(x).shape
    assert (layer.bias is None) == (plain.bias is None)
    if taken:
        assert layer.kernel_size == (13, 13) and layer.small_kernel == 5
        assert len(layer.convs) == 2 and layer.num_reps == 2
        assert layer.ghost_index.numel() and layer.norm_h.momentum == .3
        assert layer.form == 'strip'
    else:
        assert str(layer) == str(plain)


def test_a_module_of_mmcv_takes_it():
    module = DepthwiseSeparableConvModule(
        8, 4, 5, padding=2, norm_cfg=dict(type='BN'),
        conv_cfg=dict(type='shiftwise_mm.DepthwiseToShiftWise'))
    assert isinstance(module.depthwise_conv.conv, ShiftWiseConv2d)
    assert module.depthwise_conv.conv.kernel_size == (51, 51)
    assert isinstance(module.pointwise_conv.conv, nn.Conv2d)
    module(torch.rand(2, 8, 12, 7)).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name


def test_the_layer_itself_stands_in_a_depthwise_slot_alone():
    cfg = dict(type='shiftwise_mm.ShiftWiseConv2d', small_kernel=3)
    module = ConvModule(6, 6, 13, padding=6, groups=6, conv_cfg=cfg)
    assert isinstance(module.conv, ShiftWiseConv2d)
    with pytest.raises(ValueError, match='groups must be in_channels=6.*1'):
        ConvModule(6, 6, 13, padding=6, conv_cfg=cfg)
    from mmdet.models import CSPNeXt
    with pytest.raises(ValueError, match='ShiftWiseConv2d'):
        CSPNeXt(conv_cfg=cfg)


@pytest.mark.parametrize('options, words', [
    (dict(large_kernel=2), 'large_kernel.*2'),
    (dict(small_kernel=4), 'small_kernel.*odd.*4'),
    (dict(form='fast'), "form.*'fast'"),
])
def test_bad_options_are_named(options, words):
    cfg = dict(type='shiftwise_mm.DepthwiseToShiftWise', **options)
    with pytest.raises(ValueError, match=words):
        build_conv_layer(cfg, 6, 6, 5, padding=2, groups=6)
