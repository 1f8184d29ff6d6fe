"""Squeeze and excitation that deployed shift-wise layers take in."""
import copy

import pytest
import torch
from helpers import assert_near, pretend_cpu, randomise_norms
from shiftwise_mm.kernels import channel_launch
from torch.utils.flop_counter import FlopCounterMode

from shiftwise_mm.models import ShiftWiseConv2d, ShiftWiseNet
from shiftwise_mm.models.layers import SEModule
from shiftwise_mm.ops import strip_pair

# The first stage has too few hidden channels for the kernel.
ARCH = dict(embed_dims=(16, 64), depths=(1, 2))


@pytest.fixture
def taken(monkeypatch):
    """Of each launch of the kernel, whether it has it done."""
    seen = []

    class Deployed(channel_launch.Deployed):

        def __init__(self, shape, strips, bias, excitation=None):
            super().__init__(shape, strips, bias, excitation)
            self.excites = excitation is not None

        def __call__(self, x):
            seen.append(self.excites)
            return super().__call__(x)

    monkeypatch.setattr(channel_launch, 'Deployed', Deployed)
    pretend_cpu(monkeypatch, 'AVX2')
    return seen


def network(**options):
    torch.manual_seed(0)
    net = ShiftWiseNet(ARCH, kernel_sizes=(17, 9), layer_scale_init_value=.5,
                       ghost_ratio=.23, **options)
    randomise_norms(net)
    net.eval().switch_to_deploy()
    return net


@pytest.mark.parametrize('small_kernel', [3, 5])
def test_networks_have_it_done_by_the_kernel(small_kernel, taken):
    net = network(small_kernel=small_kernel)
    x = torch.randn(2, 3, 72, 96)
    wanted = copy.deepcopy(net).double()(x.double())
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        with torch.no_grad():
            outs = net(given)
        for out, reference in zip(outs, wanted, strict=True):
            assert_near(out, reference)
    assert taken == 2 * [False, True, True]


def test_a_changed_weight_is_seen(taken):
    net, x = network(), torch.randn(2, 3, 72, 96)
    with torch.no_grad():
        net(x)
        for module in net.modules():
            if isinstance(module, SEModule):
                for parameter in module.parameters():
                    parameter.data.mul_(-3)
        out = net(x)[-1]
    assert any(taken)
    assert_near(out, net.double()(x.double())[-1])


def test_another_module_in_its_place_is_called(taken):
    class Halved(SEModule):

        def forward(self, x):
            return super().forward(x) / 2

    net, x = network(), torch.randn(1, 3, 64, 64)
    blocks = [m for m in net.modules() if hasattr(m, 'se')]
    for block, se in zip(blocks, (torch.nn.Identity(), Halved(64, 16)),
                         strict=False):
        block.se = se
    with torch.no_grad():
        out = net(x)[-1]
    assert taken == [False, False, True]
    assert_near(out, net.double()(x.double())[-1])


def test_who_looks_or_differentiates_sees_the_module(taken):
    net, x, calls = network(), torch.randn(1, 3, 64, 64), []
    for module in net.modules():
        if isinstance(module, SEModule):
            module.register_forward_hook(lambda *_: calls.append(1))
    net(x)
    with torch.no_grad():
        torch.jit.trace(net, x, check_trace=False)
        torch.compiler.reset()
        torch.compile(net, backend='eager', fullgraph=True)(x)
    assert len(calls) >= 6 and not taken
    flops = []
    with torch.no_grad():
        with torch.autocast('cpu', torch.bfloat16):
            net(x)
        for _ in range(2):
            with FlopCounterMode(display=False) as counter:
                net(x)
            flops.append(counter.get_total_flops())
            for block in (m for m in net.modules() if hasattr(m, 'se')):
                block.se = torch.nn.Identity()
    assert not taken
    # Both products of each block, of 16 channels, 64 and 64.
    assert flops[0] - flops[1] == 2 * 2 * (16 * 4 + 2 * 64 * 16)


@pytest.mark.parametrize('form', ['strip', 'fused', 'channels'])
@pytest.mark.parametrize('options', [
    dict(ghost_ratio=.23), dict(), dict(ghost_ratio=.23, deploy=True)],
    ids=['ghosts', 'none', 'built deployed'])
def test_layers_of_every_form(options, form, taken, monkeypatch):
    torch.manual_seed(0)
    layer, se = ShiftWiseConv2d(64, kernel_size=13, **options), SEModule(64,
                                                                        16)
    randomise_norms(layer)
    x = torch.randn(2, 64, 32, 40)
    layer.eval()
    wanted = se(layer(x)).detach()
    with torch.no_grad():
        assert_near(layer(x, se), wanted)
        layer.switch_to_deploy()
        monkeypatch.setattr(strip_pair, '_walk_is_worth',
                            lambda *args: form == 'fused')
        if form == 'strip':
            pretend_cpu(monkeypatch, 'Zen 5')
        assert_near(layer(x, se), wanted)
        order = layer.keep_order()
        in_order = wanted if order is None else wanted[:, order.argsort()]
        back = slice(None) if order is None else order.argsort()
        se.down.weight.copy_(se.down.weight[:, back])
        se.up.weight.copy_(se.up.weight[back])
        se.up.bias.copy_(se.up.bias[back])
        assert_near(layer(x, se), in_order)
    if form == 'channels':
        assert taken[-1] is True
