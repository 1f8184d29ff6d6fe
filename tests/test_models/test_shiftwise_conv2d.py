"""ShiftWiseConv2d: the layer in other people's networks."""
import copy

import pytest
import torch
import torch.nn as nn
from helpers import assert_near, randomise_norms

from shiftwise_mm.models import ShiftWiseConv2d
from shiftwise_mm.ops import shift_add

SMALL = dict(kernel_size=13, small_kernel=3)


def by_hand(layer, x):
    """The block written out: P convolutions, shift-add, norms, identity."""
    rep, ghost = x[:, layer.rep_index], x[:, layer.ghost_index]
    y = sum(conv(rep) for conv in layer.convs)
    h, v, i = shift_add(y, layer.spec, backend='reference')
    out = layer.norm_h(h) + layer.norm_v(v) + layer.norm_i(i) + rep
    out = torch.cat([out, ghost], 1)
    return out if layer.bias is None else out + layer.bias.view(-1, 1, 1)


OPTIONS = {
    'plain': {},
    'paths and reps': dict(num_paths=3, num_reps=4),
    'ghosts': dict(ghost_ratio=.4, num_paths=2),
    'no norm': dict(norm_cfg=None, num_reps=2),
    'no bias': dict(bias=False, ghost_ratio=.23),
    'wide small kernel': dict(kernel_size=51, small_kernel=5),
    'asymmetric': dict(kernel_size=47, num_reps=2),
    'norm eps': dict(norm_cfg=dict(type='BN', eps=.1)),
    'even large kernel': dict(kernel_size=10, small_kernel=3),
    'one tap': dict(kernel_size=3),
}


def make(channels=7, **options):
    torch.manual_seed(0)
    layer = ShiftWiseConv2d(channels, **{**SMALL, **options})
    randomise_norms(layer)
    if layer.bias is not None:
        layer.bias.data.normal_()
    return layer


@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('form', ['auto', 'strip', 'shift'])
@pytest.mark.parametrize('options', OPTIONS.values(), ids=OPTIONS)
def test_layer_is_the_published_block(options, form, training):
    layer = make(form=form, **options).train(training)
    expected = copy.deepcopy(layer)
    x = torch.randn(2, 7, 12, 9, requires_grad=True)
    other = x.detach().clone().requires_grad_()
    ours, wanted = layer(x), by_hand(expected, other)
    assert_near(ours, wanted)
    seed = torch.randn_like(ours)
    ours.backward(seed)
    wanted.backward(seed)
    assert_near(x.grad, other.grad, 1e-4)
    for (name, a), (_, b) in zip(layer.named_parameters(),
                                 expected.named_parameters(), strict=True):
        assert a.grad is not None and a.grad.abs().sum() > 0, name
        assert_near(a.grad, b.grad, 1e-4)
    for (_, a), (_, b) in zip(layer.named_buffers(),
                              expected.named_buffers(), strict=True):
        assert_near(a.double(), b.double(), 1e-5)


@pytest.mark.parametrize('options', OPTIONS.values(), ids=OPTIONS)
def test_deploy_computes_the_same(options):
    layer = make(**options).eval()
    x = torch.randn(2, 7, 12, 9)
    expected = layer(x)
    layer.switch_to_deploy()
    assert_near(layer(x), expected)
    layer.switch_to_deploy()  # a second call changes nothing
    assert_near(layer(x), expected)
    built = ShiftWiseConv2d(7, **{**SMALL, **options}, deploy=True).eval()
    built.load_state_dict(layer.state_dict())
    assert_near(built(x), expected)
    names = {n.split('.')[0] for n, _ in layer.named_parameters()}
    assert names == {'strip_h', 'strip_v'}
    if layer.order is not None:
        with pytest.raises(ValueError, match='keep_order first'):
            layer.put_in_order(layer.order)
    order = layer.keep_order()
    assert (order is None) == (not options.get('ghost_ratio'))
    assert layer.keep_order() is None
    if order is not None:
        assert_near(layer(x)[:, order], expected)
        assert torch.equal(layer.order, order)
        layer.put_in_order(order)
        assert_near(layer(x[:, order]), expected)
        assert layer.order is None


def test_deploy_keeps_dtype_and_refuses_what_it_cannot_fold():
    layer = make().double().eval()
    layer.switch_to_deploy()
    assert layer.strip_h.weight.dtype == torch.float64
    with pytest.raises(TypeError, match='running statistics.*GroupNorm'):
        make(norm_cfg=dict(type='GN', num_groups=1)).switch_to_deploy()


def test_norm_cfg_is_forwarded():
    layer = make(norm_cfg=dict(type='BN', momentum=.3, eps=.2))
    for norm in (layer.norm_h, layer.norm_v, layer.norm_i):
        assert norm.momentum == .3 and norm.eps == .2


def test_it_has_the_attributes_of_a_convolution():
    layer, conv = ShiftWiseConv2d(8), nn.Conv2d(8, 8, 51, padding=25, groups=8)
    for name in ('in_channels', 'out_channels', 'kernel_size', 'stride',
                 'padding', 'dilation', 'groups', 'transposed',
                 'output_padding', 'padding_mode'):
        assert getattr(layer, name) == getattr(conv, name), name
    assert layer.bias.shape == conv.bias.shape


def test_it_builds_from_configs():
    cnn = pytest.importorskip('mmcv.cnn')
    cfg = dict(type='shiftwise_mm.ShiftWiseConv2d', small_kernel=5)
    layer = cnn.build_conv_layer(cfg, 6, 6, 11, stride=1, padding=5, groups=6,
                                 bias=False)
    assert isinstance(layer, ShiftWiseConv2d) and layer.bias is None
    module = cnn.ConvModule(6, 6, 11, padding=5, groups=6, conv_cfg=cfg,
                            norm_cfg=dict(type='BN'))
    module.init_weights()
    assert module(torch.randn(2, 6, 9, 8)).shape == (2, 6, 9, 8)


@pytest.mark.parametrize('options, error, words', [
    (dict(out_channels=5), ValueError, 'out_channels.*4.*5'),
    (dict(groups=1), ValueError, 'groups.*4.*depthwise.*1'),
    (dict(stride=2), ValueError, 'stride must be 1.*2'),
    (dict(dilation=(2, 2)), ValueError, r'dilation must be 1.*\(2, 2\)'),
    (dict(padding=1), ValueError, 'padding must be 6.*1'),
    (dict(padding=(6, 7)), ValueError, r'padding must be 6.*\(6, 7\)'),
    (dict(kernel_size=(13, 3)), ValueError, r'kernel_size.*\(13, 3\)'),
    (dict(kernel_size=2), ValueError, 'large_kernel.*small_kernel=3.*2'),
    (dict(small_kernel=4), ValueError, 'small_kernel.*odd.*4'),
    (dict(num_paths=0), ValueError, 'num_paths.*1.*0'),
    (dict(num_reps=1.5), TypeError, r'num_reps.*integer.*1\.5'),
    (dict(ghost_ratio=1.), ValueError, r'ghost_ratio.*\[0, 1\).*1\.0'),
    (dict(ghost_ratio=-.1), ValueError, r'ghost_ratio.*\[0, 1\).*-0\.1'),
    (dict(ghost_ratio=.9), ValueError, 'ghost_ratio=0.9 leaves none of 4'),
    (dict(form='fast'), ValueError, "form.*'strip'.*'fast'"),
    (dict(in_channels=0), ValueError, 'in_channels.*1.*0'),
])
def test_what_it_cannot_do_is_named(options, error, words):
    with pytest.raises(error, match=words):
        ShiftWiseConv2d(**{**dict(in_channels=4), **SMALL, **options})


def test_a_checkpoint_with_other_tables_is_refused():
    source = make(num_reps=2).state_dict()
    source['shift_h'] = source['shift_h'].flip(1)
    with pytest.raises(ValueError, match='shift_h.*kernel_size=13.*num_reps'):
        make(num_reps=2).load_state_dict(source)


def test_tables_can_be_sent_between_processes():
    """NCCL and gloo know no int16; files that have it still load."""
    layer = ShiftWiseConv2d(6, kernel_size=13, ghost_ratio=.4, num_reps=2)
    tables = {name: layer.get_buffer(name) for name in layer.TABLES}
    assert {t.dtype for t in tables.values()} == {torch.int32, torch.int64}
    state = layer.state_dict()
    for name, table in tables.items():
        state[name] = table.short()
    fresh = ShiftWiseConv2d(6, kernel_size=13, ghost_ratio=.4, num_reps=2)
    fresh.load_state_dict(state)
    for name, table in tables.items():
        assert fresh.get_buffer(name).dtype == table.dtype
        assert torch.equal(fresh.get_buffer(name), table)


@pytest.mark.parametrize('ghost_ratio', [0, .3])
@pytest.mark.parametrize('kernel_size, size', [(13, (7, 9)), (23, (30, 5)),
                                               (51, (56, 41))])
def test_the_deployed_layer_in_both_layouts(ghost_ratio, kernel_size, size):
    torch.manual_seed(0)
    layer = ShiftWiseConv2d(12, kernel_size=kernel_size, num_reps=2,
                            ghost_ratio=ghost_ratio)
    randomise_norms(layer)
    layer.bias.data.normal_()
    layer.eval()
    x = torch.randn(3, 12, *size)
    last = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = layer(x)
        layer.switch_to_deploy()
        for given in (x, last):
            assert_near(layer(given), expected)
    with_grad = layer(last.requires_grad_())  # which no part may drop
    assert_near(with_grad, expected)
    with_grad.sum().backward()
    assert last.grad.abs().min() > 0
