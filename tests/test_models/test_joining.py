"""Parts that are computed together still have their hooks and adapters."""
import copy
import re

import pytest
import torch
import torch.nn as nn
from helpers import (
    assert_near,
    modules_called,
    pretend_cpu,
    randomise_norms,
    record_launches,
)

from shiftwise_mm.models import ShiftWiseNet, SLaK
from shiftwise_mm.models.layers import GRN, LayerNorm2d
from shiftwise_mm.models.layers.blocks import UniRepBlock
from shiftwise_mm.models.layers.conv_stem import ConvStem
from shiftwise_mm.models.layers.joining import is_chain, may_be_joined
from shiftwise_mm.models.layers.pointwise_linear import PointwiseLinear
from shiftwise_mm.ops import norm_gelu

X = torch.randn(1, 3, 32, 40, generator=torch.Generator().manual_seed(0))
PARTS = ['norm', 'se', 'se.down', 'se.up', 'pwconv1', 'pwconv1.0',
         'pwconv1.1', 'act', 'act.0', 'act.1', 'pwconv2', 'pwconv2.0',
         'pwconv2.1', 'drop_path']


@pytest.fixture(autouse=True)
def avx2(monkeypatch):
    """With all that is computed together anywhere."""
    pretend_cpu(monkeypatch, 'AVX2')


def network(deploy):
    torch.manual_seed(0)
    net = ShiftWiseNet(dict(embed_dims=(16, 64), depths=(1, 1)),
                       kernel_sizes=(17, 9), layer_scale_init_value=.5,
                       drop_path_rate=0.)
    randomise_norms(net)
    for module in net.modules():
        if isinstance(module, GRN):
            nn.init.normal_(module.gamma)
    net.eval()
    if deploy:
        net.switch_to_deploy()
    return net


def block_of(net):
    return [m for m in net.modules() if isinstance(m, UniRepBlock)][-1]


def last(net, x=X):
    with torch.no_grad():
        return net(x)[-1]


@pytest.mark.parametrize('deploy', [True, False], ids=['deployed', 'trained'])
@pytest.mark.parametrize('name', PARTS)
def test_hooks_of_each_part_run_and_may_change_it(name, deploy):
    net = network(deploy)
    exact = copy.deepcopy(net).double()
    calls = []

    def hook(module, given, out):
        calls.append(out.shape)
        return out * 2

    for one in (net, exact):
        block_of(one).get_submodule(name).register_forward_hook(hook)
    out = last(net)
    assert len(calls) == 1
    assert_near(out, exact(X.double())[-1])
    assert len(calls) == 2


@pytest.mark.parametrize('kind', ['forward_pre', 'full_backward',
                                  'full_backward_pre'])
@pytest.mark.parametrize('name', ['act', 'act.1', 'pwconv2.0'])
def test_hooks_of_a_training_step_run(name, kind):
    net, calls = network(False), []
    register = getattr(block_of(net).get_submodule(name),
                       f'register_{kind}_hook')
    register(lambda *_: calls.append(1))
    net.train()(X)[-1].sum().backward()
    assert calls == [1]


def test_hooks_of_all_modules_run():
    net = network(True)
    parts = {block_of(net).get_submodule(name) for name in PARTS}
    assert parts <= modules_called(lambda: last(net))


class Adapter(nn.Module):
    """A linear layer with something of low rank beside it."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear
        self.down = nn.Linear(linear.in_features, 2, bias=False)
        self.up = nn.Linear(2, linear.out_features, bias=False)
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x):
        return self.linear(x) + self.up(self.down(x))


@pytest.mark.parametrize('deploy', [True, False], ids=['deployed', 'trained'])
@pytest.mark.parametrize('change', ['first', 'second', 'act', 'act is longer',
                                    'grn', 'gelu', 'no act', 'excitation',
                                    'parametrized'])
def test_another_module_in_a_place_is_called(change, deploy):
    net, before = network(deploy), network(deploy)
    block = block_of(net)
    for one in (net, before):  # what GELU is matters little otherwise
        block_of(one).pwconv2[0].weight.data.mul_(100)
    if change == 'first':
        block.pwconv1[1] = Adapter(block.pwconv1[1])
    elif change == 'second':
        block.pwconv2[0] = Adapter(block.pwconv2[0])
    elif change == 'act':
        block.act = nn.Sequential(nn.ReLU(), block.act[1])
    elif change == 'act is longer':
        block.act.append(nn.ReLU())
    elif change == 'grn':
        block.act[1] = nn.Tanh()
    elif change == 'gelu':
        block.act[0].approximate = 'tanh'
    elif change == 'no act':
        block.act = nn.Identity()
    elif change == 'excitation':
        block.se.up = nn.Sequential(block.se.up, nn.ReLU())
    else:
        nn.utils.parametrizations.weight_norm(block.pwconv1[1])
        block.pwconv1[1].parametrizations.weight.original0.data.mul_(2)
    out = last(net)
    assert_near(out, copy.deepcopy(net).double()(X.double())[-1])
    assert (out - last(before)).abs().max() > 1e-4


@pytest.mark.parametrize('name, part', [
    ('pwconv1.1', Adapter), ('pwconv2.0', Adapter),
    ('se', lambda se: nn.Identity()), ('se.down', nn.Sequential),
    ('act.1', lambda grn: nn.Tanh()),
    ('act', lambda act: act[0]),
    ('act', lambda act: nn.Sequential(*act, nn.ReLU())),
    ('pwconv1.1', nn.utils.parametrizations.weight_norm)])
def test_what_is_in_a_parts_place_is_not_folded(name, part):
    net = network(False)
    block = block_of(net)
    part = part(block.get_submodule(name))
    parent, _, child = name.rpartition('.')
    setattr(block.get_submodule(parent), child, part)
    shown = re.escape(name.replace('.1', '[1]').replace('.0', '[0]'))
    changed = last(net)
    with pytest.raises(TypeError, match=f'{shown} must'):
        block.switch_to_deploy()
    assert torch.equal(last(net), changed) and not block.deploy


@pytest.mark.parametrize('name', ['pwconv1', 'pwconv2'])
def test_what_is_in_a_parts_place_is_not_folded_in_slak(name):
    net = SLaK(dict(embed_dims=(8, 16), depths=(1, 1)), kernel_sizes=(9, 9),
               layer_scale_init_value=.5)
    block = net.stages[-1][0]
    setattr(block, name, Adapter(getattr(block, name)))
    with pytest.raises(TypeError, match=f'{name} must be'):
        net.switch_to_deploy()


@pytest.mark.parametrize('place', [1, 2])
def test_the_stem_has_its_hooks(place, monkeypatch):
    launches = record_launches(monkeypatch, norm_gelu, 'norm_gelu_')
    stem, calls = ConvStem(3, 32, 4), []
    x = X.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        before = stem(x)
        assert len(launches) == 1
        stem[place].register_forward_hook(lambda *_: calls.append(1))
        assert_near(stem(x), before)
    assert calls == [1] and len(launches) == 1


def test_what_may_be_joined():
    linear, norm = PointwiseLinear(4, 4), LayerNorm2d(4)
    chain = nn.Sequential(linear, norm, nn.ReLU())
    assert may_be_joined(linear, PointwiseLinear)
    assert not may_be_joined(linear, nn.Linear)
    assert is_chain(chain, PointwiseLinear, LayerNorm2d)
    assert not is_chain(chain, PointwiseLinear, nn.ReLU)
    assert not is_chain(chain, *map(type, chain), nn.ReLU)
    assert not is_chain(linear, PointwiseLinear)
    handle = norm.register_forward_pre_hook(lambda *_: None)
    assert not is_chain(chain, PointwiseLinear, LayerNorm2d)
    handle.remove()
    assert is_chain(chain, PointwiseLinear, LayerNorm2d)
