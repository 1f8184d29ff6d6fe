"""Launches of deployed layers that are made again, and what has changed."""
import copy
import pickle

import pytest
import torch
from helpers import assert_near, pretend_cpu, randomise_norms
from shiftwise_mm.kernels import channel_launch

from shiftwise_mm.models import ShiftWiseConv2d
from shiftwise_mm.ops import autotune, strip_pair


@pytest.fixture(params=[16, 27])
def deployed(request, monkeypatch):
    """A deployed layer whose kernel was launched, an input, the launches."""
    in_channels = request.param
    pretend_cpu(monkeypatch, 'AVX2')
    monkeypatch.setattr(strip_pair, '_walk_is_worth', lambda *args: False)
    torch.manual_seed(0)
    layer = ShiftWiseConv2d(in_channels, kernel_size=13, ghost_ratio=.3)
    randomise_norms(layer)
    layer.eval().switch_to_deploy()
    x, calls = torch.randn(2, in_channels, 11, 18), []

    class Deployed(channel_launch.Deployed):

        def __init__(self, *args):
            calls.append('made')
            super().__init__(*args)

        def __call__(self, x):
            calls.append('launched')
            return super().__call__(x)

    monkeypatch.setattr(channel_launch, 'Deployed', Deployed)
    with torch.no_grad():
        layer(x)
        layer(x)
    assert calls == ['made', 'launched', 'launched']
    return layer, x, calls


def test_a_measured_launch_is_kept_as_well(deployed, monkeypatch):
    layer, x, calls = deployed
    monkeypatch.setattr(autotune, 'is_on', lambda: True)
    monkeypatch.setattr(autotune, 'choice', lambda *args: 'channels')
    calls.clear()
    with torch.no_grad():
        assert torch.equal(layer(x), layer(x))
        layer.strip_v.weight.add_(1)
        layer(x)
    assert calls == ['launched', 'launched', 'made', 'launched']


def test_strides_may_change_in_place(monkeypatch):
    """Of strips as wide as long, so that their shape stays the same."""
    pretend_cpu(monkeypatch, 'AVX2')
    monkeypatch.setattr(strip_pair, '_walk_is_worth', lambda *args: False)
    layer = ShiftWiseConv2d(16, kernel_size=3, norm_cfg=None)
    layer.eval().switch_to_deploy()
    x, weight = torch.randn(1, 16, 9, 12), layer.strip_v.weight
    assert weight.shape[2] == weight.shape[3]
    with torch.no_grad():
        for _ in range(2):
            layer(x)
        address, weight.data = weight.data_ptr(), weight.data.mT
        assert weight.data_ptr() == address
        out = layer(x)
    assert_near(out, layer(x).detach())


def changes():
    """What may happen to a layer between two launches, by name."""
    def new_data(layer):
        layer.strip_v.weight.data = 3 * layer.strip_v.weight.data

    def new_parameter(layer):
        layer.strip_h.bias = torch.nn.Parameter(layer.strip_h.bias + 1)

    def there_and_back(layer):
        layer.bfloat16().float()

    def through_memory(layer):
        layer.strip_h.weight.data.mul_(-2)
        layer.strip_h.bias.data.add_(1)

    def other_strides(layer):
        weight = layer.strip_v.weight
        weight.data = weight.data.mT.contiguous().mT

    def loaded(layer):
        layer.load_state_dict({k: v if v.dtype != torch.float32 else 2 * v
                               for k, v in layer.state_dict().items()})

    def other_threads(layer):
        torch.set_num_threads(1)

    def new_runtime(layer):
        import taichi
        taichi.reset()

    def a_launch_of_another(layer):
        other = copy.deepcopy(layer)
        for parameter in other.parameters():
            parameter.data.mul_(5)
        for size in ((14, 20), (40, 31)):
            other(torch.ones(3, layer.in_channels, *size))
            layer(torch.ones(1, layer.in_channels, *size))

    return {change.__name__: change for change in locals().values()}


@pytest.mark.parametrize('name', changes())
def test_a_launch_made_again_sees_what_changes(name, deployed, poison):
    layer, x, calls = deployed
    threads = torch.get_num_threads()
    try:
        with torch.no_grad():
            changes()[name](layer)
            for given in (x, x.contiguous(memory_format=torch.channels_last),
                          x[1:], 2 * x, torch.cat([x, x])):
                out = layer(given)
                with torch.enable_grad():  # by convolutions of torch's
                    wanted = layer(given).detach()
                assert_near(out, wanted)
    finally:
        torch.set_num_threads(threads)
    assert calls.count('launched') >= 7


def test_copies_and_files_of_a_layer_that_was_launched(deployed):
    layer, x, calls = deployed
    with torch.no_grad():
        expected = layer(x)
        twin = copy.deepcopy(layer)
        layer.strip_h.weight.data.zero_()
        assert_near(twin(x), expected)
        assert_near(pickle.loads(pickle.dumps(twin))(x), expected)
        assert not torch.equal(layer(x), expected)
