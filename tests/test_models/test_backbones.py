"""What holds for every backbone, and the figures published of each."""
import pytest
import torch
import torch.nn as nn
from helpers import assert_near, pretend_cpu, randomise_norms

from shiftwise_mm.analysis.composition import shift_layers
from shiftwise_mm.models import ConvNeXt, ShiftWiseNet, SLaK, UniRepLKNet
from shiftwise_mm.models.layers.pointwise_linear import PointwiseLinear
from shiftwise_mm.registry import MODELS

DIMS, DEPTHS = (8, 12, 16, 20), (1, 2, 1, 1)
MINI = dict(embed_dims=DIMS, depths=DEPTHS)
MIXED = dict(**MINI, kernel_sizes=(3, (13, 5), 7, 9))

# Every family, and every form with parameters of its own.
NETS = {
    'unirep': lambda **o: ShiftWiseNet(MINI, **o),
    'slak style': lambda **o: ShiftWiseNet(MINI, style='slak', **o),
    'shared branch': lambda **o: ShiftWiseNet(
        MINI, style='slak', ghost_ratio=0., num_paths=1, num_reps=1, **o),
    'SLaK': lambda **o: SLaK(MINI, **o),
    'SLaK shiftwise': lambda **o: SLaK(MINI, form='shiftwise', **o),
    'SLaK gated': lambda **o: SLaK(MINI, form='shared_gated', **o),
    'UniRepLKNet': lambda **o: UniRepLKNet(MIXED, **o),
    'ConvNeXt': lambda **o: ConvNeXt(MINI, **o),
}
PATCHED = {'slak style', 'shared branch', 'SLaK', 'SLaK shiftwise',
           'SLaK gated', 'ConvNeXt'}
every_net = pytest.mark.parametrize('name', NETS)


def make(name, **options):
    torch.manual_seed(0)
    net = NETS[name](**{**dict(layer_scale_init_value=.5), **options})
    randomise_norms(net)
    for parameter in net.parameters():  # norms and biases that count
        if parameter.dim() == 1:
            parameter.data.uniform_(.3, 1.2)
    for module in net.modules():
        if hasattr(module, 'beta') and module.beta is not None:
            module.beta.data.normal_()
            module.gamma.data.normal_()
    return net


@every_net
def test_shapes(name):
    net = make(name).eval()
    height, width = 71, 96
    for out, dim, stride in zip(net(torch.randn(1, 3, height, width)),
                                net.embed_dims, (4, 8, 16, 32), strict=True):
        rows = height // stride if name in PATCHED else -(-height // stride)
        assert out.shape == (1, dim, rows, width // stride)
    assert net.embed_dims == (tuple(int(c * 1.3) for c in DIMS)
                              if name.startswith('SLaK') else DIMS)


@every_net
@pytest.mark.parametrize('strides, expected', [
    ((4, 2, 2, 1), (4, 8, 16, 16)), ((2, 2, 1, 1), (2, 4, 4, 4))])
def test_strides(name, strides, expected):
    net = make(name, strides=strides).eval()
    for out, stride in zip(net(torch.randn(1, 3, 64, 96)), expected,
                           strict=True):
        assert out.shape[2:] == (64 // stride, 96 // stride)


@every_net
def test_every_parameter_gets_a_gradient(name):
    net = make(name)
    outs = net(torch.randn(3, 3, 70, 50))
    sum((o * torch.randn_like(o)).sum() for o in outs).backward()
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None, key
        # A ReLU of an SE layer may be dead for all images.
        assert parameter.grad.any() or '.se.' in key, key


@every_net
def test_with_cp_gives_the_same_gradients(name):
    x = torch.randn(2, 3, 64, 64)
    grads = []
    for with_cp in (False, True):
        net = make(name, with_cp=with_cp, drop_path_rate=.3).train()
        torch.manual_seed(5)
        sum(o.square().sum() for o in net(x)).backward()
        grads.append({n: p.grad for n, p in net.named_parameters()})
    for key, grad in grads[0].items():
        assert_near(grads[1][key], grad, 1e-6)


@every_net
def test_common_options_are_forwarded(name):
    net = make(name, out_indices=(1, 3), norm_out=True, frozen_stages=2,
               drop_path_rate=.4, in_channels=5, norm_eval=True).train()
    outs = net(torch.randn(2, 5, 64, 64))
    assert [o.shape[1] for o in outs] == [net.embed_dims[i] for i in (1, 3)]
    assert {n for n, _ in net.named_children() if n.startswith('norm')} == {
        'norm1', 'norm3'}
    for stage, frozen in zip(net.stages, (True, True, False, False),
                             strict=True):
        assert all(p.requires_grad != frozen for p in stage.parameters())
    assert not any(m.training for m in net.modules()
                   if isinstance(m, nn.BatchNorm2d))
    rates = [b.drop_path.drop_prob for stage in net.stages for b in stage]
    assert rates == pytest.approx([0, .1, .2, .3, .4])
    for value in (None, 0.):
        assert all(b.gamma is None for stage in make(
            name, layer_scale_init_value=value).stages for b in stage)


@pytest.mark.parametrize('name', [n for n in NETS if n != 'ConvNeXt'])
def test_norm_cfg_is_forwarded(name):
    net = make(name, norm_cfg=dict(type='BN', eps=.3, momentum=.2))
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) >= sum(DEPTHS)
    assert all(m.eps == .3 and m.momentum == .2 for m in norms)
    groups = make(name, norm_cfg=dict(type='GN', num_groups=1))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in groups.modules())
    with pytest.raises(TypeError, match='running statistics.*GroupNorm'):
        groups.switch_to_deploy()


def test_norm_cfg_of_convnext():
    net = make('ConvNeXt', norm_cfg=dict(type='LN', eps=.3))
    assert all(block.norm.eps == .3 for stage in net.stages
               for block in stage)
    assert make('ConvNeXt').stages[0][0].norm.eps == 1e-6
    with pytest.raises(ValueError, match="norm_cfg.*layer norm.*'BN'"):
        make('ConvNeXt', norm_cfg=dict(type='BN'))


@every_net
@pytest.mark.parametrize('layer_scale', [.5, None], ids=['scaled', 'plain'])
def test_deploy(name, layer_scale):
    net = make(name, layer_scale_init_value=layer_scale).eval()
    x = torch.randn(1, 3, 67, 90)
    expected = net(x)
    net.switch_to_deploy()
    after = net(x)
    net.switch_to_deploy()  # a second call changes nothing
    built = make(name, deploy=True).eval()
    built.load_state_dict(net.state_dict())
    for a, b, c, d in zip(expected, after, net(x), built(x), strict=True):
        assert_near(b, a)
        assert torch.equal(b, c) and torch.equal(b, d)
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm)
                   for m in net.modules())
    left = {key.split('.')[3] for key, _ in net.named_parameters()
            if key.startswith('stages')}
    assert 'gamma' not in left and not any('act.1.beta' in key
                                           for key in net.state_dict())
    if 'UniRep' not in name and name != 'ConvNeXt':
        layer = net.stages[0][0].large_kernel
        strips = {key.split('.')[0] for key, _ in layer.named_parameters()}
        assert strips == {'strip_h', 'strip_v'}


@every_net
@pytest.mark.parametrize('vectors', ['AVX2', 'AVX512', 'Zen 5'])
def test_deployed_weights_are_stored_as_their_library_reads_them(
        name, vectors, monkeypatch, tmp_path):
    pretend_cpu(monkeypatch, vectors)
    net, x = make(name).eval(), torch.randn(1, 3, 70, 50)
    expected = [out.detach() for out in net(x)]
    net.switch_to_deploy()
    state = net.state_dict()
    # As safetensors asks for: contiguous, each in memory of its own.
    assert all(value.is_contiguous() for value in state.values())
    places = [value.data_ptr() for value in state.values() if value.numel()]
    assert len(set(places)) == len(places)
    torch.save(state, tmp_path / 'deployed.pth')
    again = NETS[name](deploy=True).eval()
    again.load_state_dict(torch.load(tmp_path / 'deployed.pth'))
    for deployed in (net, again):
        stored = {m.weight.t().is_contiguous() and not m.weight.is_contiguous()
                  for m in deployed.modules()
                  if isinstance(m, PointwiseLinear)}
        assert stored == {vectors != 'AVX2'}
        with torch.no_grad():
            for out, right in zip(deployed(x), expected, strict=True):
                assert_near(out, right)


@pytest.mark.parametrize('options', [
    dict(norm_out=False), dict(out_indices=(0, 2), norm_out=True)],
    ids=['plain', 'some'])
@pytest.mark.parametrize('name', ['unirep', 'slak style'])
def test_deployed_stages_have_their_ghosts_last(name, options):
    net = make(name, **options).eval()
    x = torch.randn(1, 3, 67, 90)
    expected = net(x)
    net.switch_to_deploy()
    for layer in shift_layers(net):
        number = layer.rep_index.numel()
        assert number < layer.in_channels and layer.order is None
        assert torch.equal(layer.rep_index, torch.arange(number))
    # Channels and places of what it returns are those of before.
    for after, before in zip(net(x), expected, strict=True):
        assert after.is_contiguous()
        assert_near(after, before)
    with torch.no_grad():
        for after, before in zip(net(x), expected, strict=True):
            assert_near(after, before)
    file = net.state_dict()
    assert not any('order_back' in key for key in file)
    built = make(name, deploy=True, **options).eval()
    built.load_state_dict(file)
    for again, after in zip(built(x), net(x), strict=True):
        assert torch.equal(again, after)


@every_net
def test_deploy_keeps_the_dtype(name):
    net = make(name).double().eval()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    expected = net(x)
    net.switch_to_deploy()
    for a, b in zip(expected, net(x), strict=True):
        assert_near(b, a)


@every_net
def test_it_is_registered_and_loads_its_own_weights(name):
    net = make(name)
    built = MODELS.build(dict(
        type=f'shiftwise_mm.{type(net).__name__}', arch='tiny'
        if not isinstance(net, UniRepLKNet) else 'a', deploy=True))
    assert isinstance(built, type(net))
    other = NETS[name](layer_scale_init_value=.5)
    other.load_state_dict(net.state_dict())
    for key, value in net.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key


@every_net
def test_bad_arguments_are_named(name):
    for options, words in ((dict(strides=(4, 2)), 'strides'),
                           (dict(out_indices=(4, )), 'out_indices'),
                           (dict(frozen_stages=9), 'frozen_stages'),
                           (dict(drop_path_rate=1.), 'drop_path_rate'),
                           (dict(in_channels=0), 'in_channels')):
        with pytest.raises(ValueError, match=words):
            make(name, **options)
    with pytest.raises(TypeError, match='unknown_option'):
        make(name, unknown_option=1)
    with pytest.raises(ValueError, match="arch must be one of .*'huge'"):
        type(make(name))('huge')


@pytest.mark.parametrize('arch, words', [
    (MINI, r'kernel_sizes in arch.*4 entries.*None'),
    (dict(**MINI, kernel_sizes=(3, (3, 3, 3), 3, 3)), r'2 numbers.*\(3, 3, 3'),
    (dict(**MINI, kernel_sizes=(3, 3, 3, 4)), 'must be odd, got 4'),
    (dict(**MINI, kernel_sizes=(3, 3, 3, 19)), 'kernel_size.*17.*19'),
])
def test_kernels_of_unireplknet_are_checked(arch, words):
    with pytest.raises(ValueError, match=words):
        UniRepLKNet(arch)


def count(make_net, classes=1000):
    """Parameters with the published classifier: a norm and a linear layer."""
    with torch.device('meta'):
        net = make_net()
    dim = net.embed_dims[-1]
    return (sum(p.numel() for p in net.parameters()) + 2 * dim +
            (dim + 1) * classes)


# Counted of the published classifier code.
@pytest.mark.parametrize('make_net, expected', [
    (lambda: ShiftWiseNet('tiny', norm_out=False), 31_790_260),
    (lambda: ShiftWiseNet('small', norm_out=False), 57_312_892),
    (lambda: ShiftWiseNet('base', norm_out=False), 100_250_380),
    (lambda: SLaK('tiny', norm_out=False), 50_703_838),
    (lambda: SLaK('small', norm_out=False), 91_131_820),
    (lambda: ConvNeXt('tiny', norm_out=False), 28_589_128),
    (lambda: ConvNeXt('small', norm_out=False), 50_223_688),
    (lambda: ConvNeXt('base', norm_out=False), 88_591_464),
], ids=['SW-T', 'SW-S', 'SW-B', 'SLaK-T', 'SLaK-S', 'ConvNeXt-T',
        'ConvNeXt-S', 'ConvNeXt-B'])
def test_parameters_are_the_published_ones(make_net, expected):
    assert count(make_net) == expected


# Table of the paper, deployed; of its README, in whole millions.
@pytest.mark.parametrize('arch, millions, half', [
    ('a', 4.4, .05), ('f', 6.2, .05), ('p', 10.7, .05), ('n', 18.3, .05),
    ('t', 31.0, .05), ('s', 55.6, .05), ('b', 98, .5), ('l', 218, .5),
    ('xl', 386, .6)])
def test_parameters_of_unireplknet_deployed(arch, millions, half):
    found = count(lambda: UniRepLKNet(arch, norm_out=False, deploy=True))
    assert found / 1e6 == pytest.approx(millions, abs=half)
