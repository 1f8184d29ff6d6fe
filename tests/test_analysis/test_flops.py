"""Counts by hand and against the published figures."""
import pytest
import torch.nn as nn
from helpers import ROOT
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from shiftwise_mm.analysis import count_config, count_model, read_config
from shiftwise_mm.analysis.composition import shift_layers
from shiftwise_mm.models import ShiftWiseNet

TABLE = (ROOT / 'docs/flops.md').read_text()
UPERNET = 'segmentation/upernet_shiftwise-{}_160k_ade20k-512x512.py'
CASCADE = 'detection/cascade-mask-rcnn_shiftwise-{}_fpn_ms-3x_coco.py'
PARAMETERS = [  # config, arch, num_paths, parameters
    (UPERNET, 'tiny', 2, 62_514_776),
    (UPERNET, 'tiny', 1, 61_727_186),
    (UPERNET, 'small', 1, 87_643_616),
    (CASCADE, 'tiny', 1, 87_438_756),
    (CASCADE, 'tiny', 2, 88_226_346),
    (CASCADE, 'small', 1, 112_359_858),
    (CASCADE, 'small', 2, 113_682_642),
]
MULTIPLY_ADDS = [  # config, num_paths, shape, G whole, G backbone
    (UPERNET, 2, (512, 2048), 954.96, 110.3),
    (UPERNET, 1, (512, 2048), 949.27, 104.6),
    (CASCADE, 1, (800, 1280), 750.2, None),
    (CASCADE, 2, (800, 1280), 755.7, None),
]


def documented(name, arch, num_paths):
    """G and M of the whole and of the backbone, from the table in docs/."""
    model = ('UperNet' if name == UPERNET else 'Cascade Mask R-CNN')
    label = f'{model} SW-{arch[0].upper()}, '
    row, = (line.split('|') for line in TABLE.splitlines()
            if f'| {label}' in line and line.split('|')[3] == f' {num_paths} ')
    return [*row[5].split(' / '), *row[6].split(' / ')]


def build(name, arch, num_paths):
    cfg = read_config(ROOT / 'configs' / name.format(arch),
                      {'model.backbone.num_paths': num_paths})
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(cfg.model)


@pytest.mark.parametrize('name, arch, num_paths, params', PARAMETERS)
def test_parameters_of_the_published_models(name, arch, num_paths, params):
    model = build(name, arch, num_paths)
    assert sum(p.numel() for p in model.parameters()) == params
    if arch == 'tiny':
        backbone = sum(p.numel() for p in model.backbone.parameters())
        assert backbone == {1: 30_362_790, 2: 31_150_380}[num_paths]
    _, whole, _, backbone = documented(name, arch, num_paths)
    assert f'{params / 1e6:.3f}' == whole.strip()
    params = sum(p.numel() for p in model.backbone.parameters())
    assert f'{params / 1e6:.3f}' == backbone.strip()


@pytest.mark.slow
@pytest.mark.parametrize('name, num_paths, shape, whole, backbone',
                         MULTIPLY_ADDS)
def test_multiply_adds_of_the_published_models(name, num_paths, shape, whole,
                                               backbone):
    counts = count_model(build(name, 'tiny', num_paths), shape,
                         published=True)
    assert counts.macs / 1e9 == pytest.approx(whole, rel=2e-3)
    if backbone is not None:
        assert counts.backbone_macs / 1e9 == pytest.approx(backbone, rel=2e-3)
    whole, _, backbone, _ = documented(name, 'tiny', num_paths)
    assert f'{counts.macs / 1e9:.2f}' == whole.strip()
    assert f'{counts.backbone_macs / 1e9:.2f}' == backbone.strip()


@pytest.mark.parametrize('arch, published', [('tiny', 5.0), ('small', 9.4)])
def test_published_figures_at_224(arch, published):
    """GFLOPs of the ImageNet models, which are those of one path."""
    net = ShiftWiseNet(arch, num_paths=1)
    counts = count_model(net, (224, 224), published=True)
    assert counts.macs / 1e9 == pytest.approx(published, rel=1.5e-2)


MINI = dict(arch=dict(embed_dims=(8, 12), depths=(1, 2)),
            kernel_sizes=(13, 7), num_paths=2, num_reps=3, ghost_ratio=.3,
            strides=(4, 2), out_indices=(0, 1))
BLOCKS = [(8, 4, 5, 13), (12, 8, 3, 7), (12, 8, 3, 7)]  # C, n_rep, k, M


def sizes(height, width):
    """Of a plane, after ``strides`` that round up."""
    half = (-(-height // 2), -(-width // 2))
    quarter = (-(-half[0] // 2), -(-half[1] // 2))
    eighth = (-(-quarter[0] // 2), -(-quarter[1] // 2))
    return half, quarter, eighth


def outside_the_operator(height, width):
    """Multiply-adds of everything else in MINI, by hand."""
    half, quarter, eighth = (h * w for h, w in sizes(height, width))
    # A layer norm counts as 5 a value, a batch-norm as 2.
    macs = half * (3 * 4 * 9 + 5 * 4) + quarter * (4 * 8 * 9 + 5 * 8)
    macs += eighth * (8 * 12 * 9 + 5 * 12)
    macs += quarter * 5 * 8 + eighth * 5 * 12  # output norms
    for (c, n_rep, _, _), plane in zip(BLOCKS, (quarter, eighth, eighth),
                                       strict=True):
        macs += 2 * plane * (3 * n_rep + 2 * c)  # batch-norms
        macs += 2 * c * (c // 4)  # squeeze and excitation
        macs += 2 * 4 * c * c * plane
    return macs


def planes(height, width):
    _, quarter, eighth = sizes(height, width)
    return zip(BLOCKS, (quarter, eighth, eighth), strict=True)


def published_operator(height, width, num_paths=2):
    """P convolutions n_rep -> n_rep*k of 3x3 over (H+2) x (W+2)."""
    return sum(num_paths * n_rep * k * 9 * (h + 2) * (w + 2)
               for (_, n_rep, k, _), (h, w) in planes(height, width))


def strips(height, width):
    """Two strips and a 3x3, and the products that place their weights."""
    macs = two_strips(planes(height, width))
    for (_, n_rep, k, _), (h, w) in planes(height, width):
        macs += n_rep * 9 * h * w
        macs += n_rep * (2 * k + 1) * k * 9
    return macs


def two_strips(blocks):
    """Both whole, as they are traced; what runs may crop them."""
    return sum(n_rep * 2 * 3 * 3 * k * h * w
               for (_, n_rep, k, _), (h, w) in blocks)


@pytest.mark.parametrize('shape', [(32, 64), (37, 50)], ids=str)
def test_a_small_net_by_hand(shape):
    net = ShiftWiseNet(**MINI)
    rest = outside_the_operator(*shape)
    counts = count_model(net, shape, published=True)
    assert counts.macs == rest + published_operator(*shape)
    assert counts.shift_adds == sum(
        n_rep * h * w * (2 * (3 * k - 1) + 2)
        for (_, n_rep, k, _), (h, w) in planes(*shape))
    assert counts.params == sum(p.numel() for p in net.parameters())
    assert type(counts.shift_adds) is type(counts.macs) is int
    assert counts.backbone_macs is None and counts.backbone_params is None
    running = count_model(net, shape)
    assert running.macs == rest + strips(*shape)
    assert running.shift_adds == 0
    shift = count_model(ShiftWiseNet(**MINI, shift_form='shift'), shape)
    assert shift.macs == rest + published_operator(*shape, num_paths=1)


@pytest.mark.parametrize('options', [
    dict(num_paths=1), dict(num_paths=3, num_reps=1), dict(small_kernel=5),
    dict(ghost_ratio=0.), dict(norm_cfg=dict(type='SyncBN')),
    dict(with_cp=True), dict(style='slak')], ids=str)
def test_paths_beyond_the_first_are_all_that_merging_saves(options):
    net = ShiftWiseNet(**{**MINI, **options, 'shift_form': 'shift'}).train()
    published = count_model(net, (32, 32), published=True)
    running = count_model(net, (32, 32))
    saved = 0
    for layer, (_, (h, w)) in zip(shift_layers(net), planes(32, 32),
                                  strict=True):
        spec, n = layer.spec, layer.small_kernel
        saved += ((layer.num_paths - 1) * spec.channels * spec.num_taps
                  * n * n * (h + n - 1) * (w + n - 1))
    assert published.macs - running.macs == saved
    assert (saved == 0) == (options.get('num_paths') == 1)
    assert net.training


def bare(**options):
    return Config(dict(model=dict(type='shiftwise_mm.ShiftWiseNet', **MINI,
                                  **options)))


@pytest.mark.parametrize('form, shows', [
    ('auto', 'strip'), ('strip', 'strip'), ('shift', 'shift')])
def test_published_beside_the_form_that_runs(form, shows):
    report = count_config(bare(shift_form=form), (32, 64))
    assert report.form == shows
    rest = outside_the_operator(32, 64)
    assert report.published.macs == rest + published_operator(32, 64)
    assert report.running.params == report.published.params
    if shows == 'strip':
        assert report.running.macs == rest + strips(32, 64)
        assert report.running.shift_adds == 0
    else:
        assert report.running.macs == rest + published_operator(32, 64, 1)
        assert report.running.shift_adds == report.published.shift_adds > 0


def test_a_deployed_model_is_counted_as_published_too():
    cfg = bare(deploy=True)
    report = count_config(cfg, (32, 64))
    assert report.form == 'deploy'
    assert report.published == count_config(bare(), (32, 64)).published
    assert report.running.params == sum(
        p.numel() for p in ShiftWiseNet(**MINI, deploy=True).parameters())
    assert cfg.model.deploy is True  # the user's config is left alone
    norms = sum(2 * h * w * (3 * n_rep + 2 * c)
                for (c, n_rep, _, _), (h, w) in planes(32, 64))
    # All channels, the ghosts too, and no small kernel of its own.
    every = [((c, c, k, m), plane) for (c, _, k, m), plane in planes(32, 64)]
    assert report.running.macs == \
        outside_the_operator(32, 64) - norms + two_strips(every)
    with pytest.raises(ValueError, match='deploy=False'):
        count_model(ShiftWiseNet(**MINI, deploy=True), (32, 32),
                    published=True)


def test_a_model_without_our_layers_has_one_column():
    report = count_config(Config(dict(
        default_scope='mmdet',
        model=dict(type='ResNet', depth=18, num_stages=1, strides=(1, ),
                   dilations=(1, ), out_indices=(0, )))), (32, 32))
    assert report.running is None and report.form is None
    # The stem of 7x7, then two blocks of two 3x3; a batch-norm behind each.
    stem = 16 * 16 * 64 * (3 * 49 + 2)
    assert report.published.macs == stem + 4 * 8 * 8 * 64 * (64 * 9 + 2)


def test_nested_models_sum_over_their_backbones():
    class Pair(nn.Module):

        def __init__(self):
            super().__init__()
            self.student, self.teacher = nn.Module(), nn.Module()
            for part in (self.student, self.teacher):
                part.backbone = ShiftWiseNet(**MINI)
                part.backbone.backbone = nn.Conv2d(1, 1, 1)  # not outermost
            self.head = nn.Conv2d(12, 2, 1)

        def forward(self, x):
            first, second = (part.backbone(x)
                             for part in (self.student, self.teacher))
            return *first, *second, self.head(first[-1] + second[-1])

    counts = count_model(Pair(), (32, 64), published=True)
    one = count_model(ShiftWiseNet(**MINI), (32, 64), published=True)
    assert counts.backbone_params == 2 * (one.params + 2)
    assert counts.params == counts.backbone_params + 26
    assert counts.backbone_macs == 2 * one.macs
    assert counts.macs == 2 * one.macs + 4 * 8 * 24
    assert counts.shift_adds == 2 * one.shift_adds


@pytest.mark.parametrize('shape, error, words', [
    ((0, 32), ValueError, 'height.*1.*0'),
    ((32, -1), ValueError, 'width.*1.*-1'),
    ((32., 32), TypeError, r'height.*integer.*32\.0'),
])
def test_bad_shapes_are_named(shape, error, words):
    with pytest.raises(error, match=words):
        count_model(ShiftWiseNet(**MINI), shape)


@pytest.mark.parametrize('key', [
    'num_paths', 'modle.backbone', 'model.backbon.num_paths',
    'model.roi_head.bbox_head.3.type', 'model.roi_head.bbox_head.x.type',
    'model.backbone.num_paths.p'])
def test_keys_without_a_place_are_named(key):
    with pytest.raises(ValueError, match=f"no such key.*tiny.*'{key}'"):
        read_config(ROOT / 'configs' / CASCADE.format('tiny'), {key: 1})


def test_options_are_merged():
    cfg = read_config(ROOT / 'configs' / CASCADE.format('tiny'), {
        'model.backbone.num_paths': 1, 'model.backbone.deploy': True,
        'model.roi_head.bbox_head.1.num_classes': 3, 'max_epochs': 2})
    assert cfg.model.backbone.num_paths == 1 and cfg.model.backbone.deploy
    assert [h.num_classes for h in cfg.model.roi_head.bbox_head] == [80, 3,
                                                                     80]
