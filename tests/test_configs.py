"""The recipes of the published models, as mmdet and mmseg understand them."""
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from helpers import ROOT
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope

DETECTION = 'detection/cascade-mask-rcnn_shiftwise-{}_fpn_ms-3x_coco.py'
SEGMENTATION = 'segmentation/upernet_shiftwise-{}_160k_ade20k-512x512.py'
DIMS = {'tiny': [80, 160, 320, 640], 'small': [96, 192, 384, 768]}


def read(name, arch):
    return Config.fromfile(ROOT / 'configs' / name.format(arch))


@pytest.mark.parametrize('arch', DIMS)
@pytest.mark.parametrize('name', [DETECTION, SEGMENTATION])
def test_the_published_backbone(name, arch):
    backbone = read(name, arch).model.backbone.to_dict()
    assert backbone.pop('norm_cfg') == dict(type='SyncBN')
    assert backbone == dict(
        type='shiftwise_mm.ShiftWiseNet', arch=arch,
        kernel_sizes=(51, 49, 47, 13), small_kernel=3, ghost_ratio=.23,
        num_paths=2, num_reps=4, drop_path_rate=.4,
        layer_scale_init_value=1.)


@pytest.mark.parametrize('arch', DIMS)
def test_detection(arch):
    cfg = read(DETECTION, arch)
    assert cfg.model.neck.in_channels == DIMS[arch]
    heads = cfg.model.roi_head.bbox_head
    assert [h.bbox_coder.target_stds[0] for h in heads] == [.1, .05, .033]
    for head in heads:
        assert head.num_shared_convs == 4 and head.num_shared_fcs == 1
        assert head.norm_cfg.type == 'SyncBN' and head.reg_class_agnostic
        assert head.loss_bbox.type == 'GIoULoss' and head.reg_decoded_bbox
    assert cfg.train_cfg.max_epochs == 36
    warm_up, steps = cfg.param_scheduler
    assert warm_up.type == 'LinearLR' and steps.milestones == [27, 33]
    assert cfg.train_dataloader.batch_size == 2  # on 8 GPUs
    assert cfg.auto_scale_lr.base_batch_size == 16
    whole, crop = cfg.train_dataloader.dataset.pipeline[3].transforms
    assert [s[0] for s in whole[0].scales] == list(range(480, 801, 32))
    assert [t.type for t in crop] == ['RandomChoiceResize', 'RandomCrop',
                                      'RandomChoiceResize']


@pytest.mark.parametrize('arch', DIMS)
def test_segmentation(arch):
    cfg = read(SEGMENTATION, arch)
    model = cfg.model
    assert model.decode_head.in_channels == DIMS[arch]
    assert model.auxiliary_head.in_channels == DIMS[arch][2]
    assert model.decode_head.num_classes == 150
    assert model.auxiliary_head.num_classes == 150
    assert model.test_cfg == dict(mode='slide', crop_size=(512, 512),
                                  stride=(341, 341))
    assert model.data_preprocessor.size == (512, 512)
    assert cfg.train_cfg.max_iters == 160000
    warm_up, poly = cfg.param_scheduler
    assert (warm_up.type, warm_up.end) == ('LinearLR', 1500)
    assert (poly.type, poly.begin, poly.end) == ('PolyLR', 1500, 160000)
    assert cfg.train_dataloader.batch_size == 2  # on 8 GPUs
    assert cfg.img_ratios == [.5, .75, 1., 1.25, 1.5, 1.75]


def groups_of(name):
    """The model of a config, nano-sized, and the group of each parameter."""
    cfg = read(name, 'tiny')
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    cfg.model.backbone.update(arch='nano')
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    assert isinstance(optimizer, torch.optim.AdamW)
    groups = {id(p): group
              for group in optimizer.param_groups for p in group['params']}
    assert len(groups) == len(list(model.parameters()))
    return model, groups


def test_what_does_not_decay_in_segmentation():
    """Norms, biases and scales; every other weight by 0.05."""
    model, groups = groups_of(SEGMENTATION)
    kernels = 0
    for name, parameter in model.named_parameters():
        group = groups[id(parameter)]
        # What has more than a dimension is a kernel, but for GRN's two.
        decays_at = .05 if max(parameter.shape) < parameter.numel() else 0
        assert group['weight_decay'] == decays_at, name
        assert group['lr'] == 1e-4
        kernels += decays_at > 0
    assert 0 < kernels < len(groups)


def test_the_learning_rate_of_detection_decays_by_layer():
    """By 0.8 over 12 layers, as published."""
    model, groups = groups_of(DETECTION)
    expected = {
        'neck.lateral_convs.0.conv.weight': (1., .05),
        'backbone.norm3.weight': (1., 0.),
        'backbone.stages.3.0.pwconv1.1.weight': (.8, .05),
        'backbone.stages.2.0.pwconv1.1.bias': (.8**10, 0.),
        'backbone.stages.1.0.pwconv1.1.weight': (.8**11, .05),
        'backbone.stages.0.0.gamma': (.8**12, 0.),
        'backbone.downsample_layers.0.0.weight': (.8**13, .05),
    }
    parameters = dict(model.named_parameters())
    for name, (scale, decay) in expected.items():
        group = groups[id(parameters[name])]
        assert group['lr'] == pytest.approx(1e-4 * scale), name
        assert group['weight_decay'] == decay, name


@pytest.mark.parametrize('mode, calls', [('slide', 2), ('whole', 1)])
def test_both_single_scale_tests_of_segmentation(mode, calls):
    cfg = read(SEGMENTATION, 'tiny')
    cfg.merge_from_dict({
        'model.test_cfg.mode': mode, 'model.backbone.arch': 'nano',
        'model.decode_head.in_channels': [24, 48, 96, 192],
        'model.decode_head.channels': 8, 'model.auxiliary_head': None,
        'model.test_cfg.crop_size': (64, 64),
        'model.test_cfg.stride': (42, 42)})
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg.model).eval()
    sizes = []
    model.backbone.register_forward_pre_hook(
        lambda module, args: sizes.append(tuple(args[0].shape[2:])))
    with torch.no_grad():
        result, = model.predict(torch.rand(1, 3, 64, 96))
    assert result.pred_sem_seg.data.shape == (1, 64, 96)
    assert sizes == [(64, 64) if mode == 'slide' else (64, 96)] * calls


@pytest.mark.parametrize('library, name', [('mmdet', DETECTION),
                                           ('mmseg', SEGMENTATION)])
def test_the_tools_of_the_libraries_read_them_unmodified(library, name,
                                                         tmp_path):
    """In a fresh process, where nothing has imported this package."""
    tools = Path(import_module(library).__file__).parent / '.mim/tools'
    done = subprocess.run(
        [sys.executable, str(tools / 'misc/print_config.py'),
         str(ROOT / 'configs' / name.format('small'))],
        capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "type='shiftwise_mm.ShiftWiseNet'" in done.stdout
    assert "arch='small'" in done.stdout
