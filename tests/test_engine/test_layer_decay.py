"""Layer-wise decay: the published grouping, inside real models."""
import pytest
import torch
import torch.nn as nn
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper

from shiftwise_mm.models import ConvNeXt, ShiftWiseNet, SLaK, UniRepLKNet

DIMS, DEPTHS = (8, 8, 8, 8), (1, 2, 18, 2)
MINI = dict(embed_dims=DIMS, depths=DEPTHS)
NETS = {
    'unirep': lambda: ShiftWiseNet(MINI),
    'slak': lambda: ShiftWiseNet(MINI, style='slak'),
    'SLaK': lambda: SLaK(MINI),
    'UniRepLKNet': lambda: UniRepLKNet(dict(**MINI, kernel_sizes=(3,) * 4)),
    'ConvNeXt': lambda: ConvNeXt(MINI),
}


class Detector(nn.Module):
    """A backbone with something in front of it in name, and a head."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.neck = nn.Conv2d(8, 8, 1)


def build(model, **paramwise):
    cfg = dict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=1e-2, weight_decay=.05),
        constructor='shiftwise_mm.LayerDecayOptimWrapperConstructor',
        paramwise_cfg={**dict(decay_rate=.8), **paramwise})
    optimizer = build_optim_wrapper(model, cfg).optimizer
    return {
        id(param): group
        for group in optimizer.param_groups for param in group['params']
    }


# As published, with L = 12.
PUBLISHED = {
    'downsample_layers.0': 0, 'stages.0.0': 1, 'downsample_layers.1': 2,
    'stages.1.0': 2, 'stages.1.1': 2, 'downsample_layers.2': 3,
    'stages.2.0': 3, 'stages.2.2': 3, 'stages.2.3': 4, 'stages.2.17': 8,
    'downsample_layers.3': 12, 'stages.3.0': 12, 'stages.3.1': 12,
    'norm0': 13, 'norm3': 13
}


@pytest.mark.parametrize('make', NETS.values(), ids=NETS)
@pytest.mark.parametrize('num_layers', [None, 12])
def test_the_published_grouping(make, num_layers):
    model = Detector(make())
    groups = build(model, num_layers=num_layers)
    seen = set()
    for name, param in model.named_parameters():
        group = groups[id(param)]
        if name.startswith('neck'):
            depth = 13
        else:
            own = name.removeprefix('backbone.')
            key = next((k for k in PUBLISHED if own.startswith(f'{k}.')), None)
            if key is None:
                continue
            seen.add(key)
            depth = PUBLISHED[key]
        assert group['lr'] == pytest.approx(1e-2 * .8**(13 - depth)), name
        plain = param.ndim == 1 or name.endswith('bias')
        assert group['weight_decay'] == (0 if plain else .05), name
    assert seen == set(PUBLISHED)
    assert len(groups) == len(list(model.parameters()))


def test_fewer_layers_and_stages():
    model = Detector(ShiftWiseNet(dict(embed_dims=DIMS, depths=(1, 1, 9, 1))))
    last = model.backbone.stages[3][0].gamma
    block = model.backbone.stages[2][8].gamma
    groups = build(model)
    assert groups[id(last)]['lr'] == pytest.approx(1e-2 * .8)
    assert groups[id(block)]['lr'] == pytest.approx(1e-2 * .8**2)
    groups = build(model, decay_type='stage_wise')
    rates = {name: groups[id(p)]['lr'] / 1e-2
             for name, p in model.named_parameters()}
    for name, power in (('backbone.downsample_layers.3.0.weight', 5),
                        ('backbone.stages.0.0.gamma', 4),
                        ('backbone.stages.3.0.gamma', 1),
                        ('backbone.norm3.weight', 0), ('neck.weight', 0)):
        assert rates[name] == pytest.approx(.8**power), name


def test_frozen_parameters_are_left_out_and_groups_are_logged(monkeypatch):
    lines = []
    logger = MMLogger.get_instance('layer-decay-test')
    monkeypatch.setattr(logger, 'log',
                        lambda level, text, *a, **k: lines.append(text))
    model = Detector(ShiftWiseNet(MINI, frozen_stages=1))
    groups = build(model)
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert frozen and not any(id(p) in groups for p in frozen)
    assert any(line.startswith('layer_13_decay: ') for line in lines)
    assert not any(line.startswith('layer_1_') for line in lines)


def test_it_trains_in_a_segmentor():
    from mmseg.registry import MODELS
    from mmseg.utils import register_all_modules
    register_all_modules()
    head = dict(type='FCNHead', in_channels=8, in_index=3, channels=4,
                num_classes=2, num_convs=1, norm_cfg=dict(type='BN'))
    model = MODELS.build(dict(
        type='EncoderDecoder', decode_head=head,
        backbone=dict(type='shiftwise_mm.ShiftWiseNet', arch=MINI,
                      out_indices=(0, 1, 2, 3))))
    cfg = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1.),
               constructor='shiftwise_mm.LayerDecayOptimWrapperConstructor',
               paramwise_cfg=dict(decay_rate=.5))
    wrapper = build_optim_wrapper(model, cfg)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for param in model.parameters():
        param.grad = torch.ones_like(param)
    wrapper.step()
    for name, param in model.named_parameters():
        step = (before[name] - param).mean().item()
        if name.startswith('decode_head'):
            assert step == pytest.approx(1., rel=1e-4)
        elif name.startswith('backbone.downsample_layers.0'):
            assert step == pytest.approx(.5**13, rel=1e-2)


@pytest.mark.parametrize('paramwise, error, words', [
    (dict(decay_rate=0.), ValueError, r'decay_rate.*\(0, 1\].*0\.0'),
    (dict(decay_rate='x'), ValueError, "decay_rate.*'x'"),
    (dict(decay_type='cosine'), ValueError, "decay_type.*'cosine'"),
    (dict(num_layers=0), ValueError, 'num_layers.*1.*0'),
    (dict(num_layers=1.5), TypeError, r'num_layers.*integer.*1\.5'),
    (dict(norm_decay_mult=0.), ValueError, 'norm_decay_mult'),
])
def test_bad_options_are_named(paramwise, error, words):
    with pytest.raises(error, match=words):
        build(Detector(ConvNeXt(MINI)), **paramwise)


def test_a_model_without_depths_is_named():
    with pytest.raises(ValueError, match='get_layer_depth.*Linear has none'):
        build(nn.Linear(2, 2))


def test_stages_as_mmseg_groups_them():
    """mmseg's own constructor, which knows ConvNeXt by its name."""
    from mmseg.engine.optimizers import LearningRateDecayOptimizerConstructor
    model = Detector(ConvNeXt(MINI))
    for decay_type, num_layers in (('stage_wise', 6), ('stage_wise', 12),
                                   ('layer_wise', 9), ('layer_wise', 12)):
        paramwise = dict(decay_rate=.9, decay_type=decay_type,
                         num_layers=num_layers)
        theirs = LearningRateDecayOptimizerConstructor(
            dict(type='OptimWrapper', optimizer=dict(
                type='AdamW', lr=1e-2, weight_decay=.05)),
            dict(paramwise))(model).optimizer
        expected = {id(p): group for group in theirs.param_groups
                    for p in group['params']}
        for key, group in build(model, **paramwise).items():
            assert group['lr'] == pytest.approx(expected[key]['lr'])
            assert group['weight_decay'] == expected[key]['weight_decay']


@pytest.mark.parametrize('library', ['mmdet', 'mmseg'])
def test_swin_of_other_libraries(library):
    """In the same grouping, so that it trains by the same recipe."""
    from importlib import import_module
    swin = import_module(f'{library}.models').SwinTransformer
    model = Detector(swin(embed_dims=8, depths=(2, 2, 6, 2),
                          num_heads=(1, 1, 1, 1), use_abs_pos_embed=True))
    groups = build(model, num_layers=12)
    names = dict(model.named_parameters())
    expected = {
        'patch_embed.projection.weight': 0, 'absolute_pos_embed': 0,
        'patch_embed.norm.weight': 0,
        'stages.0.blocks.1.ffn.layers.1.weight': 1,
        'stages.0.downsample.reduction.weight': 2,
        'stages.1.blocks.0.attn.w_msa.relative_position_bias_table': 2,
        'stages.1.downsample.norm.weight': 3,
        'stages.2.blocks.2.norm1.weight': 3,
        'stages.2.blocks.3.norm1.weight': 4,
        'stages.2.downsample.norm.weight': 12,
        'stages.3.blocks.1.norm2.bias': 12, 'norm0.weight': 13,
        'norm3.bias': 13,
    }
    for name, depth in expected.items():
        group = groups[id(names[f'backbone.{name}'])]
        assert group['lr'] == pytest.approx(1e-2 * .8**(13 - depth)), name
    assert len(groups) == len(names)
    groups = build(model, decay_type='stage_wise', num_layers=6)
    for name, depth in (('stages.1.downsample.norm.weight', 0),
                        ('stages.2.blocks.3.norm1.weight', 3),
                        ('norm3.bias', 7)):
        group = groups[id(names[f'backbone.{name}'])]
        assert group['lr'] == pytest.approx(1e-2 * .8**(7 - depth)), name


def test_another_swin_is_not_taken_for_theirs():

    class SwinTransformer(nn.Linear):
        pass

    with pytest.raises(ValueError, match='get_layer_depth.*Detector'):
        build(Detector(SwinTransformer(2, 2)))
