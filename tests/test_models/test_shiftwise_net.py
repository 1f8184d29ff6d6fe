"""ShiftWiseNet: the published function, every option, gradients, loading."""
import copy
import random

import numpy as np
import pytest
import torch
import torch.nn as nn
from helpers import assert_near, randomise_norms
from mmengine.runner import load_checkpoint
from shiftwise_mm.kernels import shift_add as kernels

from shiftwise_mm.models import ShiftWiseConv2d, ShiftWiseNet
from shiftwise_mm.models.layers import LayerNorm2d

# Small enough for a test, with every kind of part.
MINI = dict(embed_dims=(8, 12, 16, 20), depths=(1, 2, 1, 1))


def make(arch=MINI, **options):
    torch.manual_seed(0)
    net = ShiftWiseNet(arch, **{**dict(layer_scale_init_value=.5), **options})
    randomise_norms(net)
    return net


def test_shift_launches_one_kernel_a_layer_and_direction(monkeypatch):
    launches = dict(forward=0, backward=0)
    for name in launches:
        real = getattr(kernels, name)

        def counted(*args, name=name, real=real):
            launches[name] += 1
            return real(*args)

        monkeypatch.setattr(kernels, name, counted)
    net = make(shift_form='shift')
    blocks = sum(MINI['depths'])
    outs = net(torch.randn(2, 3, 64, 64))
    assert launches == dict(forward=blocks, backward=0)
    sum(o.sum() for o in outs).backward()
    assert launches == dict(forward=blocks, backward=blocks)


@pytest.mark.parametrize('name, depths, dims', [
    ('tiny', (3, 3, 18, 3), (80, 160, 320, 640)),
    ('small', (3, 3, 27, 3), (96, 192, 384, 768)),
    ('base', (3, 3, 27, 3), (128, 256, 512, 1024)),
    ('large', (3, 3, 27, 3), (192, 384, 768, 1536)),
])
def test_published_archs(name, depths, dims):
    settings = ShiftWiseNet.arch_settings['unirep'][name]
    assert settings == dict(embed_dims=dims, depths=depths)


def test_every_parameter_gets_a_gradient():
    # Wide enough that no ReLU of an SE layer is dead for every image.
    net = make(width_factor=4)
    sum(o.square().sum() for o in net(torch.randn(4, 3, 70, 50))).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_weights_follow_torchs_seed_and_nothing_else_moves():
    np.random.seed(3)
    random.seed(3)
    before = np.random.get_state()[1].copy(), random.getstate()
    one, other = make(), make()
    assert (before[0] == np.random.get_state()[1]).all()
    assert before[1] == random.getstate()
    torch.manual_seed(1)
    third = ShiftWiseNet(MINI)
    key = 'stages.1.0.pwconv1.1.weight'
    assert torch.equal(one.state_dict()[key], other.state_dict()[key])
    assert not torch.equal(one.state_dict()[key], third.state_dict()[key])


@pytest.mark.parametrize('strides, expected', [
    ((4, 2, 2, 2), (4, 8, 16, 32)),
    ((4, 2, 2, 1), (4, 8, 16, 16)),
    ((4, 2, 1, 1), (4, 8, 8, 8)),
    ((2, 2, 2, 2), (2, 4, 8, 16)),
])
def test_strides(strides, expected):
    net = make(strides=strides).eval()
    outs = net(torch.randn(1, 3, 65, 96))
    for out, stride, dim in zip(outs, expected, MINI['embed_dims'],
                                strict=True):
        assert out.shape == (1, dim, -(-65 // stride), 96 // stride)
    kernels = [stage[0].large_kernel.kernel_size[0] for stage in net.stages]
    assert kernels == [51, 49, 47, 13]


@pytest.mark.parametrize('indices', [(0, ), (1, 3), (0, 1, 2, 3)], ids=str)
def test_out_indices_and_output_norms(indices):
    full, net = make(norm_out=False).eval(), make(out_indices=indices).eval()
    net.load_state_dict(full.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 64)
    for index, out in zip(indices, net(x), strict=True):
        norm = getattr(net, f'norm{index}')
        assert isinstance(norm, LayerNorm2d)
        plain = full(x)[index]
        assert_near(out, norm(plain))
        assert out.mean(1).abs().max() < 1e-5
    present = {n for n, _ in net.named_children() if n.startswith('norm')}
    assert present == {f'norm{i}' for i in indices}


def test_out_indices_are_not_changed():
    indices = [1, 2]
    make(out_indices=indices)
    assert indices == [1, 2]


@pytest.mark.parametrize('frozen', [-1, 0, 1, 2, 4])
def test_frozen_stages(frozen):
    net = make(frozen_stages=frozen).train()
    for name, parameter in net.named_parameters():
        part, index = name.split('.')[:2]
        if part == 'downsample_layers':
            # The stem is frozen at 0; the layer before stage n with it.
            stop = frozen >= 0 and int(index) <= max(frozen - 1, 0)
        elif part == 'stages':
            stop = int(index) < frozen
        else:
            stop = False
        assert parameter.requires_grad != stop, name
    before = copy.deepcopy(net.state_dict())
    outs = net(torch.randn(2, 3, 64, 64))
    if outs[-1].requires_grad:
        sum(o.sum() for o in outs).backward()
    for i, stage in enumerate(net.stages):
        key = f'stages.{i}.0.norm.running_mean'
        moved = not torch.equal(before[key], net.state_dict()[key])
        assert moved == (i >= frozen), key
        assert stage.training == (i >= frozen)


def test_norm_eval():
    net = make(norm_eval=True).train()
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and not any(m.training for m in norms)
    assert net.stages[0].training
    assert all(m.weight.requires_grad for m in norms)
    assert any(m.training for m in make().train().modules()
               if isinstance(m, nn.BatchNorm2d))


def test_every_option_is_forwarded():
    net = make(num_paths=3, num_reps=2, small_kernel=5, ghost_ratio=.5,
               kernel_sizes=(21, 15, 9, 5), shift_form='shift',
               norm_cfg=dict(type='BN', eps=.3), width_factor=1.5,
               drop_path_rate=.2, in_channels=4)
    layers = [m for m in net.modules() if isinstance(m, ShiftWiseConv2d)]
    assert [layer.kernel_size[0] for layer in layers] == [21, 15, 15, 9, 5]
    for layer in layers:
        assert (layer.num_paths, layer.num_reps) == (3, 2)
        assert layer.small_kernel == 5 and layer.form == 'shift'
        assert layer.spec.channels == layer.in_channels // 4 * 2
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 5 * len(layers)
    assert all(m.eps == .3 for m in norms)
    assert net.embed_dims == (12, 18, 24, 30)
    assert net.downsample_layers[0][0].in_channels == 4
    rates = [b.drop_path.drop_prob for stage in net.stages for b in stage]
    assert rates == pytest.approx([0, .05, .1, .15, .2])
    groups = make(norm_cfg=dict(type='GN', num_groups=2))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in groups.modules())
    for value in (None, 0., -1.):
        assert all(b.gamma is None
                   for b in make(layer_scale_init_value=value).stages[1])
    assert ShiftWiseNet(MINI).stages[0][0].gamma.tolist() == [
        pytest.approx(1e-6)] * 8


@pytest.mark.parametrize('options, error, words', [
    (dict(arch='huge'), ValueError, "arch.*'nano', 'tiny'.*'huge'"),
    (dict(arch=3), TypeError, 'arch.*str or a dict.*3'),
    (dict(arch=dict(depths=(1, ))), ValueError, 'arch.*embed_dims'),
    (dict(arch=dict(embed_dims=(8, 8), depths=(1, 1, 1))), ValueError,
     'embed_dims.*3 integers'),
    (dict(arch=dict(embed_dims=(8, ), depths=(0, ))), ValueError,
     'depths.*1.*0'),
    (dict(kernel_sizes=(51, 49)), ValueError, r'kernel_sizes.*4.*\(51, 49\)'),
    (dict(kernel_sizes=51), TypeError, 'kernel_sizes.*sequence.*51'),
    (dict(kernel_sizes=(51, 49, 47, 1)), ValueError,
     'large_kernel.*small_kernel=3.*1'),
    (dict(small_kernel=4), ValueError, 'small_kernel.*odd.*4'),
    (dict(ghost_ratio=1), ValueError, r'ghost_ratio.*\[0, 1\).*1'),
    (dict(ghost_ratio=-.2), ValueError, r'ghost_ratio.*\[0, 1\).*-0\.2'),
    (dict(style='resnet'), ValueError, "style.*'unirep'.*'resnet'"),
    (dict(shift_form='x'), ValueError, "form.*'strip'.*'x'"),
    (dict(out_indices=(0, 4)), ValueError, r'out_indices.*0\.\.3.*\(0, 4\)'),
    (dict(out_indices=(-1, )), ValueError, r'out_indices.*0\.\.3.*-1'),
    (dict(out_indices=()), ValueError, 'out_indices'),
    (dict(out_indices=(2, 1)), ValueError, 'out_indices.*ascending'),
    (dict(out_indices=3), TypeError, 'out_indices.*sequence.*3'),
    (dict(strides=(4, 2, 2)), ValueError, 'strides.*4 integers'),
    (dict(strides=(1, 2, 2, 2)), ValueError, 'strides.*2 or 4.*stem'),
    (dict(strides=(4, 3, 2, 2)), ValueError, 'strides.*1 or 2'),
    (dict(frozen_stages=5), ValueError, 'frozen_stages.*4.*5'),
    (dict(frozen_stages=-2), ValueError, 'frozen_stages.*-1.*-2'),
    (dict(drop_path_rate=1.), ValueError, r'drop_path_rate.*\[0, 1\).*1\.0'),
    (dict(width_factor=0), ValueError, 'width_factor.*positive.*0'),
    (dict(in_channels=0), ValueError, 'in_channels.*1.*0'),
    (dict(num_paths=0), ValueError, 'num_paths.*1.*0'),
])
def test_bad_arguments_are_named(options, error, words):
    with pytest.raises(error, match=words):
        ShiftWiseNet(**{**dict(arch=MINI), **options})


def test_checkpoints_of_mmengine_load(tmp_path):
    net, file = make(), tmp_path / 'net.pth'
    torch.save(dict(state_dict=net.state_dict()), file)
    other = ShiftWiseNet(MINI)
    load_checkpoint(other, str(file))
    by_cfg = ShiftWiseNet(
        MINI, init_cfg=dict(type='Pretrained', checkpoint=str(file)))
    by_cfg.init_weights()
    for name, value in net.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
        assert torch.equal(by_cfg.state_dict()[name], value), name


@pytest.mark.parametrize('spoil, words', [
    (lambda s: {k: v for k, v in s.items() if 'stages.2' not in k},
     'missing.*stages.2'),
    (lambda s: {}, 'missing'),
    (lambda s: {**s, 'stages.0.0.gamma': torch.ones(3)},
     r"another shape.*stages.0.0.gamma.*\(3,\)"),
])
def test_a_partial_load_is_refused(spoil, words):
    state = spoil(make().state_dict())
    with pytest.raises(ValueError, match=words):
        make().load_state_dict(state, strict=False)
    if 'shape' not in words:
        make(strict_load=False).load_state_dict(state, strict=False)


def test_output_norms_may_be_absent():
    make().load_state_dict(make(norm_out=False).state_dict(), strict=False)
