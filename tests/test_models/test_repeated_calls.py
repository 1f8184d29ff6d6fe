"""Deployed blocks whose calls are prepared, and what happens in between."""
import copy
import pickle

import pytest
import torch
import torch.nn as nn
from helpers import (
    assert_near,
    modules_called,
    pretend_cpu,
    randomise_norms,
)
from torch.utils.flop_counter import FlopCounterMode

from shiftwise_mm.models import ShiftWiseNet
from shiftwise_mm.models.layers import GRN, repeated
from shiftwise_mm.ops import autotune, gelu_grn, strip_pair

X = torch.randn(2, 3, 33, 48, generator=torch.Generator().manual_seed(0))
PARTS = ['large_kernel', 'norm', 'se', 'se.down', 'se.up', 'pwconv1',
         'pwconv1.0', 'pwconv1.1', 'act', 'act.0', 'act.1', 'pwconv2',
         'pwconv2.0', 'pwconv2.1', 'drop_path']


@pytest.fixture(params=['AVX2', 'AVX512'])
def given(request, monkeypatch):
    """A deployed network whose second call was prepared, and such calls."""
    pretend_cpu(monkeypatch, request.param)
    monkeypatch.setattr(gelu_grn, '_LEAST', 1)
    monkeypatch.setattr(strip_pair, '_walk_is_worth', lambda *args: False)
    calls, run = [], repeated._Call.__call__

    def spy(self, x):
        calls.append(tuple(x.shape))
        return run(self, x)

    monkeypatch.setattr(repeated._Call, '__call__', spy)
    torch.manual_seed(0)
    net = ShiftWiseNet(dict(embed_dims=(64, 128), depths=(2, 1)),
                       kernel_sizes=(13, 9), layer_scale_init_value=.5,
                       drop_path_rate=.3)
    randomise_norms(net)
    for module in net.modules():
        if isinstance(module, GRN):
            nn.init.normal_(module.gamma)
    net.eval().switch_to_deploy()
    for stage in net.stages:  # the branch matters little otherwise
        for block in stage:
            block.se.down.weight.data.mul_(30)
            block.pwconv2[0].weight.data.mul_(100)
    last(net)
    assert calls == []
    first = last(net)
    assert calls == [(2, 64, 9, 12)] * 2 + [(2, 128, 5, 6)]
    assert torch.equal(last(net), first)
    calls.clear()
    return net, calls


def last(net, x=X):
    with torch.no_grad():
        return net(x)[-1]


def block_of(net):
    return net.stages[0][1]


def exact(net, x=X):
    """Of a copy, which has nothing prepared, in double precision."""
    return last(copy.deepcopy(net).double(), x.double())


def changes():
    """What may happen to a block between two calls, by name."""
    def in_memory(block):
        for weight in (block.pwconv1[1].weight, block.pwconv2[0].bias,
                       block.act[1].gamma, block.se.up.weight,
                       block.mixer.strip_h.weight):
            weight.data.mul_(-2)

    def new_data(block):
        for part in (block.pwconv1[1], block.pwconv2[0], block.se.down):
            part.weight.data = part.weight.data * 3
            part.bias.data = part.bias.data + 1

    def new_parameters(block):
        block.act[1].gamma = nn.Parameter(block.act[1].gamma * 3)
        block.pwconv2[0].weight = nn.Parameter(block.pwconv2[0].weight * 3)

    def new_strips(block):
        strip = block.mixer.strip_v
        strip.weight = nn.Parameter(strip.weight * 3)

    def zeros(block):
        with torch.no_grad():
            block.mixer.strip_v.weight.zero_()
            block.mixer.strip_h.weight[:, :, :, 1:].zero_()

    def loaded(block):
        block.load_state_dict({
            k: 2 * v if v.is_floating_point() else v
            for k, v in block.state_dict().items()})

    def there_and_back(block):
        block.bfloat16().float()

    def another_layer(block):
        block.pwconv1[1] = nn.Linear(64, 256)

    def another_strip(block):
        block.mixer.strip_h = copy.deepcopy(block.mixer.strip_h)
        block.mixer.strip_h.bias.data.add_(1)

    def one_more(block):
        block.act.append(nn.Tanh())

    def another_excitation(block):
        block.se.down = nn.Sequential(block.se.down, nn.Tanh())

    def another_norm(block):
        block.norm = nn.Tanh()

    def other_gelu(block):
        block.act[0].approximate = 'tanh'

    def other_eps(block):
        block.act[1].eps = 2.

    def with_beta(block):
        block.act[1].beta = nn.Parameter(torch.randn(1, 1, 1, 256))

    def parametrized(block):
        nn.utils.parametrizations.weight_norm(block.pwconv2[0])
        block.pwconv2[0].parametrizations.weight.original0.data.mul_(2)

    return {change.__name__: change for change in locals().values()}


# Of these the prepared call is still the right one.
LIVE = {'in_memory', 'other_eps'}


@pytest.mark.parametrize('name', changes())
def test_what_changes_is_seen(name, given):
    net, calls = given
    before = last(net)
    calls.clear()
    changes()[name](block_of(net))
    out = last(net)
    assert len(calls) == 3 if name in LIVE else len(calls) < 3
    if name != 'there_and_back':
        assert (out - before).abs().max() > 3e-5 * before.abs().max()
    for _ in range(2):
        assert_near(last(net), exact(net))


@pytest.mark.parametrize('name', PARTS)
def test_hooks_that_come_later_run(name, given):
    net, calls = given
    heard = []

    def hook(module, args, out):
        heard.append(out.shape)
        return out * 2

    part = block_of(net).get_submodule(name)
    handle = part.register_forward_hook(hook)
    out = last(net)
    assert len(heard) == 1 and len(calls) < 3
    assert_near(out, exact(net))
    handle.remove()
    calls.clear()
    assert_near(last(net), exact(net))
    assert len(calls) == 3


def test_hooks_of_all_modules_run(given):
    net, calls = given
    parts = {block_of(net).get_submodule(name) for name in PARTS}
    assert parts <= modules_called(lambda: last(net)) and not calls


def test_other_inputs(given, poison):
    net, calls = given
    for x in (X[1:], 2 * X, torch.cat([X, X]), X[..., :29],
              X.contiguous(memory_format=torch.channels_last)):
        for _ in range(2):
            assert_near(last(net, x), exact(net, x))
    block, y = block_of(net), torch.randn(2, 64, 9, 12)
    calls.clear()
    with torch.no_grad():  # rows of other strides
        out = block(y)
        assert not calls
        assert_near(block(y.contiguous(memory_format=torch.channels_last)),
                    out)
    assert calls == [(2, 64, 9, 12)]


def test_other_ways_to_call(given):
    net, calls = given
    expected = last(net)
    calls.clear()
    gradient = net(X)[-1]
    assert gradient.requires_grad
    assert_near(gradient.detach(), expected)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        assert_near(net(X)[-1].float(), expected, .05)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(X)
    products = 2 * (2 * 9 * 12 * 64 * 256 * 2 * 2 + 2 * 5 * 6 * 128 * 512 * 2)
    assert counter.get_total_flops() > products
    assert_near(torch.func.functional_call(
        net, {k: v * 1 for k, v in net.named_parameters()}, (X, ))[-1],
        expected)
    assert not calls
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):
        assert_near(net(X)[-1], expected)
    assert not calls
    block_of(net).train().drop_path.drop_prob = 1.
    out = last(net)
    assert len(calls) == 2 and not torch.equal(out, expected)
    block_of(net).eval()
    calls.clear()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert_near(last(net), expected)
    finally:
        torch.set_num_threads(threads)
    assert not calls
    with torch.inference_mode():
        assert_near(net(X)[-1], expected)
    assert len(calls) == 3


@pytest.mark.parametrize('way', ['trace', 'export', 'compile'])
def test_graphs_of_it_have_operators_of_torch(way, given):
    net, calls = given
    expected = last(net)
    calls.clear()
    with torch.no_grad():
        if way == 'trace':
            graph = torch.jit.trace(net, X, check_trace=False)
        elif way == 'export':
            graph = torch.export.export(net, (X, )).module()
        else:
            graph = torch.compile(net, backend='eager')
        out = graph(X)[-1]
    assert_near(out, expected)
    assert not calls


def test_a_measured_choice_and_another_runtime(given, monkeypatch):
    net, calls = given
    expected = last(net)
    calls.clear()
    with monkeypatch.context() as patch:
        patch.setattr(autotune, 'is_on', lambda: True)
        patch.setattr(autotune, 'choice', lambda *args: 'channels')
        assert_near(last(net), expected)
        assert not calls
    import taichi
    taichi.reset()
    for _ in range(2):
        assert_near(last(net), expected)
    assert len(calls) == 6


def test_copies_and_files(given):
    net, calls = given
    expected = last(net)
    twins = copy.deepcopy(net), pickle.loads(pickle.dumps(net))
    for parameter in net.parameters():
        parameter.data.mul_(.5)
    for twin in twins:
        calls.clear()
        assert torch.equal(last(twin), expected) and not calls
        assert torch.equal(last(twin), expected) and len(calls) == 3


def test_few_are_kept(given, monkeypatch):
    net, _ = given
    monkeypatch.setattr(repeated, '_KEPT', 3)
    for width in range(32, 64, 4):
        assert_near(last(net, X[..., :width]), exact(net, X[..., :width]))
        assert len(block_of(net)._repeated._calls) <= 3
