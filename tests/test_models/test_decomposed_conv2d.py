"""The decomposed large kernel of SLaK: its forms compute one function."""
import copy

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_near, randomise_norms

from shiftwise_mm.models import SLaK
from shiftwise_mm.models.layers.decomposed_conv2d import (
    DecomposedConv2d,
    kernel_to_taps,
    taps_to_kernel,
)

SIZES = [(51, 5), (49, 5), (47, 3), (13, 5), (13, 3), (5, 5), (15, 5)]
sizes = pytest.mark.parametrize('m, n', SIZES)


def make(m, n, form='large', channels=3, **options):
    torch.manual_seed(0)
    layer = DecomposedConv2d(channels, m, small_kernel=n, form=form, **options)
    randomise_norms(layer)
    return layer


def by_hand(layer, x, m, n):
    """As published: three convolutions, the norms, a sum."""
    channels = x.shape[1]
    v = F.conv2d(x, layer.conv_v.weight, padding=(m // 2, n // 2),
                 groups=channels)
    h = F.conv2d(x, layer.conv_h.weight, padding=(n // 2, m // 2),
                 groups=channels)
    i = F.conv2d(x, layer.conv_i.weight, padding=n // 2, groups=channels)
    return layer.norm_v(v) + layer.norm_h(h) + layer.norm_i(i)


@sizes
@pytest.mark.parametrize('direction', 'hv')
def test_kernels_and_taps(m, n, direction):
    shape = (4, 1, n, m) if direction == 'h' else (4, 1, m, n)
    kernel = torch.randn(shape)
    taps = kernel_to_taps(kernel, direction, n)
    assert taps.shape == (4 * -(-m // n), 1, n, n)
    first = kernel[2, 0, :, :n] if direction == 'h' else kernel[2, 0, :n]
    assert torch.equal(taps[2 * -(-m // n), 0, :first.shape[0],
                            :first.shape[1]], first)
    assert torch.equal(taps_to_kernel(taps, direction, m), kernel)
    if m % n:
        taps[-1, 0, -1, -1] = 1.
        with pytest.raises(ValueError, match=f'beyond large_kernel={m}'):
            taps_to_kernel(taps, direction, m)


@sizes
@pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])
@pytest.mark.parametrize('shift_form', ['strip', 'shift'])
def test_large_and_shiftwise_are_the_published_function(m, n, training,
                                                        shift_form):
    large = make(m, n).train(training)
    expected = copy.deepcopy(large)
    small = make(m, n, 'shiftwise', shift_form=shift_form).train(training)
    state = large.state_dict()
    small.adapt_state_dict(state, '')
    small.load_state_dict(state)
    x = torch.randn(2, 3, 19, 14)
    outs, grads = [], []
    cotangent = torch.randn(2, 3, 19, 14)
    for layer in (large, small, expected):
        own = x.clone().requires_grad_()
        out = by_hand(layer, own, m, n) if layer is expected else layer(own)
        out.backward(cotangent)
        outs.append(out)
        grads.append(dict(
            input=own.grad,
            **{key: p.grad for key, p in layer.named_parameters()}))
    for out in outs[:2]:
        assert_near(out, outs[2])
    for key, grad in grads[2].items():
        assert_near(grads[0][key], grad, 1e-4)
        ours = grads[1][key]
        if key in ('conv_h.weight', 'conv_v.weight'):
            # The padding behind the last tap has a gradient of its own.
            d = key[5]
            length = ours.numel() // 3 // n
            ours = taps_to_kernel(ours, d, length)
            ours = ours[..., :m] if d == 'h' else ours[:, :, :m]
        assert_near(ours, grad, 1e-4)


def test_gates_scale_the_taps():
    layer = make(13, 3, 'shared_gated').eval()
    for gate in (layer.gate_h, layer.gate_v):
        gate.weight.data.normal_()
    plain = make(13, 3, 'shiftwise').eval()
    state = {key: value for key, value in layer.state_dict().items()
             if 'norm' in key or key == 'conv_i.weight'}
    for d in 'hv':
        scale = torch.sigmoid(getattr(layer, f'gate_{d}').weight)
        state[f'conv_{d}.weight'] = layer.conv.weight * scale.view(-1, 1, 1, 1)
    plain.load_state_dict(state)
    x = torch.randn(2, 3, 12, 15)
    assert_near(layer(x), plain(x))


def test_switching_a_network_there_and_back_changes_no_bit():
    torch.manual_seed(0)
    net = SLaK(dict(embed_dims=(8, 12, 16, 20), depths=(1, 2, 1, 1))).eval()
    randomise_norms(net)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    x = torch.randn(1, 3, 64, 64)
    expected = net(x)
    net.switch_form('shiftwise')
    assert net.stages[0][0].large_kernel.conv_h.weight.shape == (110, 1, 5, 5)
    for a, b in zip(net(x), expected, strict=True):
        assert_near(a, b)
    net.switch_form('large')
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[key], value)
               for key, value in before.items())


def test_what_cannot_be_switched_is_named():
    with pytest.raises(ValueError, match="got 'shared_gated'"):
        make(13, 5).switch_form('shared_gated')
    with pytest.raises(ValueError, match="layer of form 'shared_gated'"):
        make(13, 5, 'shared_gated').switch_form('large')
    deployed = make(13, 5).eval()
    deployed.switch_to_deploy()
    with pytest.raises(ValueError, match='before switch_to_deploy'):
        deployed.switch_form('shiftwise')


@pytest.mark.parametrize('options, error, words', [
    (dict(form='small'), ValueError, "form.*'shared_gated'.*'small'"),
    (dict(shift_form='x'), ValueError, "shift_form.*'strip'.*'x'"),
    (dict(n=4), ValueError, 'small_kernel.*odd.*4'),
    (dict(m=3, n=5), ValueError, 'large_kernel.*small_kernel=5.*3'),
    (dict(m=5.5), TypeError, r'kernel_size.*integer.*5\.5'),
])
def test_bad_arguments_are_named(options, error, words):
    with pytest.raises(error, match=words):
        make(**{**dict(m=13, n=5), **options})
