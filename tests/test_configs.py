"""The recipes of the published models, as mmdet and mmseg understand them."""
import copy
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
import shipped
import torch
from helpers import ROOT
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, MODELS, TRANSFORMS, DefaultScope

from shiftwise_mm.stack import ONEDL, find_stack

CASCADE = 'detection/cascade-mask-rcnn_{}_fpn_ms-3x_coco.py'
DETECTION = CASCADE.format('shiftwise-{}')
UPERNET = 'segmentation/upernet_{}_160k_ade20k-512x512.py'
SEGMENTATION = UPERNET.format('shiftwise-{}')
OTHERS = {
    'mask-rcnn': 'detection/mask-rcnn_shiftwise-{}_fpn_1x_coco.py',
    'retinanet': 'detection/retinanet_shiftwise-{}_fpn_1x_coco.py',
    'atss': 'detection/atss_shiftwise-{}_fpn_1x_coco.py',
    'dino': 'detection/dino-4scale_shiftwise-{}_12e_coco.py',
    'mask2former': 'segmentation/mask2former_shiftwise-{}_160k_'
    'ade20k-512x512.py',
}
DIMS = {
    'tiny': [80, 160, 320, 640],
    'small': [96, 192, 384, 768],
    'base': [128, 256, 512, 1024],
}
ROWS = ('slak-tiny', 'unireplknet-tiny', 'convnext-tiny', 'swin-tiny')
NAMES = sorted(
    str(path.relative_to(ROOT / 'configs'))
    for folder in ('detection', 'segmentation')
    for path in (ROOT / 'configs' / folder).glob('*.py'))


def read(name, arch=''):
    return shipped.read(name.format(arch))


def build(cfg, device='cpu'):
    """By the registry of the library, as its own tools do."""
    import_module(f'{cfg.default_scope}.utils').register_all_modules()
    registry = import_module(f'{cfg.default_scope}.registry').MODELS
    if 'Swin' in str(cfg.model.get('backbone')):
        device = 'cpu'  # it asks for values while it is built
    with torch.device(device):
        return registry.build(copy.deepcopy(cfg.model))


@pytest.mark.parametrize('arch', DIMS)
@pytest.mark.parametrize('name', [DETECTION, SEGMENTATION,
                                  OTHERS['mask-rcnn']])
def test_the_published_backbone(name, arch):
    backbone = read(name, arch).model.backbone.to_dict()
    assert backbone.pop('norm_cfg') == dict(type='SyncBN')
    assert backbone == dict(
        type='shiftwise_mm.ShiftWiseNet', arch=arch,
        kernel_sizes=(51, 49, 47, 13), small_kernel=3, ghost_ratio=.23,
        num_paths=2, num_reps=4, drop_path_rate=.4,
        layer_scale_init_value=1.)


@pytest.mark.parametrize('name', [DETECTION, SEGMENTATION,
                                  OTHERS['mask-rcnn']])
def test_the_published_slak_style(name):
    backbone = read(name, 'slak-tiny').model.backbone
    assert backbone.pop('style') == 'slak' and backbone.small_kernel == 5
    backbone.small_kernel = 3
    assert backbone == read(name, 'tiny').model.backbone


@pytest.mark.parametrize('name', OTHERS.values(), ids=OTHERS)
def test_other_models_have_the_same_backbone(name):
    backbone = read(name, 'tiny').model.backbone
    assert backbone.pop('out_indices', (1, 2, 3)) == (1, 2, 3)
    assert backbone == read(DETECTION, 'tiny').model.backbone


@pytest.mark.parametrize('name', NAMES)
def test_channels_and_levels_are_those_of_the_backbone(name):
    cfg = read(name)
    model, = shipped.built(name)
    backbone, indices = model.backbone, cfg.model.backbone.get('out_indices')
    if hasattr(backbone, 'num_features'):  # Swin
        dims = backbone.num_features
    elif hasattr(backbone, 'embed_dims'):
        dims = [backbone.embed_dims[i] for i in backbone.out_indices]
    else:
        return  # other people's, as their libraries configure it
    if cfg.default_scope == 'mmdet':
        neck = cfg.model.neck
        assert list(neck.in_channels) == dims
        # An output that the neck leaves out has a norm without gradient.
        assert neck.get('start_level', 0) == 0
        if indices is not None:
            assert [backbone.strides[0] * 2**i for i in indices] == [8, 16, 32]
        return
    assert list(cfg.model.decode_head.in_channels) == dims
    if 'auxiliary_head' in cfg.model:
        assert cfg.model.auxiliary_head.in_channels == dims[2]


@pytest.mark.parametrize('arch', DIMS)
def test_detection(arch):
    cfg = read(DETECTION, arch)
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


@pytest.mark.parametrize('row', ROWS)
@pytest.mark.parametrize('name', [CASCADE, UPERNET])
def test_the_rows_differ_in_the_backbone_alone(name, row):
    """The comparison: the very same recipe, drop path rate included."""
    ours, other = read(name, 'shiftwise-tiny'), read(name, row)
    assert other.model.backbone.drop_path_rate == .4
    assert other.model.backbone.type != ours.model.backbone.type
    for cfg in (ours, other):
        cfg.model.pop('backbone')
        for part in ('neck', 'decode_head', 'auxiliary_head'):
            if part in cfg.model:
                cfg.model[part].pop('in_channels')
    assert shipped.text_of(other) == shipped.text_of(ours)


@pytest.mark.parametrize('name, rate', [
    (DETECTION.format('tiny'), .8), (CASCADE.format('swin-tiny'), .8),
    (OTHERS['dino'].format('tiny'), .8),
    (SEGMENTATION.format('tiny'), 1.), (UPERNET.format('swin-tiny'), 1.)])
def test_learning_rates_and_what_does_not_decay(name, rate):
    """Biases and what has one dimension do not; every other weight by .05."""
    cfg = read(name)
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    assert ('clip_grad' in cfg.optim_wrapper) == ('dino' in name)
    model = build(cfg, 'meta')
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    assert isinstance(optimizer, torch.optim.AdamW)
    groups = {id(p): group for group in optimizer.param_groups
              for p in group['params']}
    seen = set()
    for parameter_name, parameter in model.named_parameters():
        group = groups[id(parameter)]
        plain = parameter.ndim == 1 or parameter_name.endswith('.bias')
        assert group['weight_decay'] == (0 if plain else .05)
        seen.add(round(float(np.log(group['lr'] / 1e-4)), 6))
        if not parameter_name.startswith('backbone.'):
            assert group['lr'] == 1e-4
    if rate == 1:
        assert seen == {0.}
    else:  # stem 13, stages 12, 11, 10 and so on, last stage 1, heads 0
        powers = {round(value / np.log(rate)) for value in seen}
        blocks = {10, 9} if 'swin' in name else {10, 9, 8, 7, 6, 5}
        assert powers == {13, 12, 11, 1, 0} | blocks


def test_the_learning_rate_of_detection_decays_by_layer():
    """By 0.8 over 12 layers, as published."""
    cfg = read(DETECTION.format('tiny'))
    model = build(cfg, 'meta')
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    groups = {id(p): group for group in optimizer.param_groups
              for p in group['params']}
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
    cfg = small_upernet()
    cfg.model.test_cfg.mode = mode
    model = build(cfg).eval()
    sizes = record_sizes(model)
    with torch.no_grad():
        result, = model.predict(torch.rand(1, 3, 64, 96))
    assert result.pred_sem_seg.data.shape == (1, 64, 96)
    assert sizes == [(64, 64) if mode == 'slide' else (64, 96)] * calls


@pytest.mark.parametrize('library, name', [('mmdet', DETECTION),
                                           ('mmseg', SEGMENTATION)])
def test_the_tools_of_the_libraries_read_them_unmodified(library, name,
                                                         tmp_path):
    """In a fresh process, where nothing has imported this package."""
    tool = Path(import_module(library).__file__).parent.joinpath(
        '.mim/tools/misc/print_config.py')

    def run(*python):
        return subprocess.run(
            [sys.executable, *python,
             str(ROOT / 'configs' / name.format('small'))],
            capture_output=True, text=True, cwd=tmp_path, timeout=300)

    done = run(str(tool))
    if library == 'mmseg' and find_stack() is ONEDL:
        # The fork's mmengine looks for any mmseg:: base under the name of the
        # original distribution; docs/install.md has the way around.
        assert done.stderr.endswith('mmsegmentation is not installed, please '
                                    'install mmsegmentation manually\n')
        done = run('-c', 'import runpy, shiftwise_mm; runpy.run_path('
                   f'{str(tool)!r}, run_name="__main__")')
    assert done.returncode == 0, done.stderr[-3000:]
    assert "type='shiftwise_mm.ShiftWiseNet'" in done.stdout
    assert "arch='small'" in done.stdout


def small_upernet():
    cfg = read(SEGMENTATION, 'tiny')
    cfg.merge_from_dict({
        'model.backbone.arch': 'nano',
        'model.decode_head.in_channels': [24, 48, 96, 192],
        'model.decode_head.channels': 8, 'model.auxiliary_head': None,
        'model.test_cfg.crop_size': (64, 64),
        'model.test_cfg.stride': (42, 42)})
    return cfg


def record_sizes(model):
    sizes = []
    model.backbone.register_forward_pre_hook(
        lambda module, args: sizes.append(tuple(args[0].shape[2:])))
    return sizes


@pytest.mark.parametrize('name', [
    n for n in NAMES if n.startswith('segmentation')])
def test_the_multi_scale_test(name, tmp_path):
    """Six scales of the single-scale test's size, each with its mirror."""
    cfg = read(name)
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    cv2.imwrite(str(tmp_path / 'image.png'), image)
    cv2.imwrite(str(tmp_path / 'map.png'), image[..., 0] % 151)
    import_module('mmseg.utils').register_all_modules()
    with DefaultScope.overwrite_default_scope('mmseg'):
        steps = [TRANSFORMS.build(step) for step in cfg.tta_pipeline]
        results = dict(
            img_path=str(tmp_path / 'image.png'), seg_fields=[],
            seg_map_path=str(tmp_path / 'map.png'), reduce_zero_label=True)
        for step in steps:
            results = step(results)
    shapes = [tuple(x.shape[1:]) for x in results['inputs']]
    single = 512, 683  # what Resize makes of it: short side 512
    assert sorted(set(shapes)) == [
        (round(single[0] * r), round(120 / 90 * single[0] * r))
        for r in (.5, .75, 1., 1.25, 1.5, 1.75)]
    flips = [bool(s.flip) for s in results['data_samples']]
    assert len(flips) == 12 and sum(flips) == 6
    truth = results['data_samples'][0].gt_sem_seg.data
    assert truth.shape == (1, 90, 120) and truth.max() <= 255
    assert cfg.tta_model.type == 'SegTTAModel'


def test_the_multi_scale_test_predicts():
    """Through the averaging model of mmseg, as test.py --tta builds it."""
    from mmseg.structures import SegDataSample
    cfg = small_upernet()
    cfg.model = dict(**cfg.tta_model, module=cfg.model)
    model = build(cfg).eval()
    sizes = record_sizes(model.module)
    data = dict(inputs=[], data_samples=[])
    for height, width in ((32, 48), (64, 96)):
        for flip in (False, True):
            data['inputs'].append([torch.randint(
                0, 256, (3, height, width), dtype=torch.uint8)])
            data['data_samples'].append([SegDataSample(metainfo=dict(
                ori_shape=(50, 75), img_shape=(height, width), flip=flip,
                flip_direction='horizontal', img_path='x.png'))])
    with torch.no_grad():
        result, = model.test_step(data)
    assert result.pred_sem_seg.data.shape[-2:] == (50, 75)
    # 32x48 is one window, of 64x96 there are two; each with its mirror.
    assert sizes == [(32, 48)] * 2 + [(64, 64)] * 4


PRETRAINING = sorted(
    path.name for path in (ROOT / 'configs/pretraining').glob('*.py'))


@pytest.mark.parametrize('name', PRETRAINING)
def test_pretraining_fits_together(name):
    """Parsed and its shapes checked; mmpretrain itself is not there."""
    from mmengine.structures import BaseDataElement
    cfg = read(f'pretraining/{name}')
    assert cfg.default_scope == 'mmpretrain'
    with torch.device('meta'):
        backbone = MODELS.build(cfg.model.backbone)
    head = MODELS.build(cfg.model.head)
    feats = torch.rand(2, backbone.embed_dims[-1], 7, 7),
    assert head(feats).shape == (2, 1000)
    # As mixup and CutMix leave the labels.
    loss = head.loss(feats, [
        BaseDataElement(gt_score=torch.rand(1000)) for _ in range(2)])
    assert loss['loss'].shape == ()
    epochs = int(name.split('_')[1].removesuffix('e'))
    assert cfg.train_cfg.max_epochs == epochs
    warm_up, cosine = cfg.param_scheduler
    assert warm_up.end == cosine.begin == 5 and cosine.end == epochs
    assert cfg.optim_wrapper.optimizer.lr == 4e-3
    assert cfg.auto_scale_lr.base_batch_size == 4096
    assert not backbone.norm_out and backbone.out_indices == (3, )


SPARSE = {
    'pretraining/shiftwise-sparse-tiny_300e_in1k-224.py':
    dict(sparsity=.3, init='snip', prune_rate=.3, growth='random',
         interval=100, path_gap=131),
    DETECTION.format('sparse-tiny'): dict(init='from_weights'),
    SEGMENTATION.format('sparse-tiny'): dict(init='from_weights'),
}


@pytest.mark.parametrize('name', SPARSE)
def test_sparse_recipes_differ_in_the_hook_alone(name):
    sparse, dense = read(name), read(name.replace('sparse-', ''))
    *others, hook = sparse.custom_hooks
    assert others == dense.custom_hooks
    assert hook == dict(type='shiftwise_mm.CoarseSparsityHook',
                        **SPARSE[name])
    HOOKS.build(hook)
    sparse.custom_hooks = dense.custom_hooks
    assert shipped.text_of(sparse) == shipped.text_of(dense)


def test_the_published_sparsity_is_that_of_the_hook():
    """Its defaults are the published settings."""
    hook = read('pretraining/shiftwise-sparse-tiny_300e_in1k-224.py'
                ).custom_hooks[-1]
    given, default = HOOKS.build(hook), HOOKS.build(dict(type=hook.type))
    assert vars(given) == vars(default)


def test_the_seed_papers_network_has_shared_branches():
    cfg = read('pretraining/shiftwise-shared-tiny_120e_in1k-224.py')
    with torch.device('meta'):
        backbone = MODELS.build(cfg.model.backbone)
    assert backbone.embed_dims == (124, 249, 499, 998)
    for stage, taps in zip(backbone.stages, (11, 10, 9, 3), strict=True):
        layer = stage[0].large_kernel
        assert layer.spec.num_taps == taps and layer.spec.small_kernel == 5
        assert len(layer.convs) == 1 and layer.spec.num_reps == 1
        assert not layer.ghost_index.numel()
