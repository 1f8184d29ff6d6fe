"""Layers with masks and deployed sparse layers: the function, the savings."""
import copy

import pytest
import torch
from helpers import assert_near, pretend_cpu, randomise_norms
from shiftwise_mm.kernels import channel_launch, fused_launch
from torch.utils.flop_counter import FlopCounterMode

from shiftwise_mm.models import ShiftWiseConv2d
from shiftwise_mm.models.layers import kernel_masks
from shiftwise_mm.models.layers.decomposed_conv2d import DecomposedConv2d
from shiftwise_mm.ops import (
    autotune,
    forms,
    set_autotune,
    strip_pair,
)


def shiftwise(**options):
    torch.manual_seed(0)
    layer = ShiftWiseConv2d(**{**dict(
        in_channels=16, kernel_size=13, num_paths=2, ghost_ratio=.3),
        **options})
    randomise_norms(layer)
    layer.bias.data.normal_()
    return layer


def decomposed(form='shiftwise', **options):
    torch.manual_seed(0)
    layer = DecomposedConv2d(17, 23, small_kernel=5, form=form, **options)
    randomise_norms(layer)
    return layer


def set_masks(layer, density=.4, seed=1, granularity='tap'):
    layer.add_masks(granularity)
    generator = torch.Generator().manual_seed(seed)
    for name in layer.masked_kernels():
        shape = getattr(layer, name).shape
        layer.set_mask(name, torch.rand(shape, generator=generator) < density)
    return layer


def inputs(layer):
    channels = getattr(layer, 'in_channels', None) or layer.spec.channels
    return torch.randn(2, channels, 11, 18)


LAYERS = {
    'shift-wise': shiftwise,
    'reps, one path': lambda **o: shiftwise(
        num_paths=1, num_reps=3, small_kernel=5, kernel_size=23, **o),
    'even large kernel': lambda **o: shiftwise(
        kernel_size=10, ghost_ratio=0., **o),
    'channels of no whole vector': lambda **o: shiftwise(in_channels=27, **o),
    'SLaK': decomposed,
    'SLaK, gated': lambda **o: decomposed('shared_gated', **o),
}
every_layer = pytest.mark.parametrize('make', LAYERS.values(), ids=LAYERS)


def option(layer):
    return 'form' if isinstance(layer, ShiftWiseConv2d) else 'shift_form'


@pytest.mark.parametrize('form, granularity', [
    ('fused', 'tap'), ('strip', 'weight'), ('shift', 'tap')])
@every_layer
def test_masks_change_nothing_but_the_cost(make, form, granularity):
    """The masked weights are zero: as a layer that knows of no mask."""
    layer = set_masks(make(), .3, granularity=granularity).train()
    plain = copy.deepcopy(layer)
    plain.remove_masks()
    setattr(layer, option(layer), form)
    setattr(plain, option(plain), 'strip')
    given = [inputs(layer).requires_grad_()]
    given.append(given[0].detach().clone().requires_grad_())
    outs = layer(given[0]), plain(given[1])
    assert_near(*outs)
    seed = torch.randn_like(outs[0])
    for out in outs:
        out.backward(seed)
    assert_near(given[0].grad, given[1].grad, 1e-4)
    others = dict(plain.named_parameters())
    for name, weights in layer.masked_kernels().items():
        union = layer.union_mask(name).view(-1, 1, 1, 1)
        for weight in weights:
            assert not (weight.grad * ~union).any() and weight.grad.any()
            key, = (k for k, w in layer.named_parameters() if w is weight)
            assert_near(weight.grad, others.pop(key).grad * union, 1e-4)
    for name, weight in others.items():
        assert_near(layer.get_parameter(name).grad, weight.grad, 1e-4)
    with torch.no_grad():
        assert_near(layer.eval()(given[0]), plain.eval()(given[0]))


def given_masks(layer, monkeypatch):
    """The masks that the operator is given, as they come."""
    from shiftwise_mm.models.layers import decomposed_conv2d, shiftwise_conv2d
    taken = []
    for module in (decomposed_conv2d, shiftwise_conv2d):
        monkeypatch.setattr(
            module, 'shiftwise_conv', lambda *args, mask, **kwargs:
            taken.append(mask) or forms.shiftwise_conv(
                *args, mask=mask, **kwargs))
    return taken


@every_layer
def test_the_operator_gets_the_union(make, monkeypatch):
    layer = make()
    taken = given_masks(layer, monkeypatch)
    x = inputs(layer)
    layer(x)
    layer.add_masks('tap')
    layer(x)
    assert set(taken) == {None}  # nothing is masked
    for training in (True, False):
        set_masks(layer.train(training))
        taken.clear()
        layer(x)
        names = list(layer.masked_kernels())
        for mask, name in zip(taken, names[::-1] * 2, strict=False):
            assert torch.equal(mask, layer.union_mask(name))
    layer.whole_gradients = True
    taken.clear()
    layer(x)
    assert set(taken) == {None}


def test_the_union_is_made_when_the_mask_has_changed(monkeypatch):
    made = []
    union = kernel_masks.KernelMasks.union_mask
    monkeypatch.setattr(kernel_masks.KernelMasks, 'union_mask',
                        lambda *args: made.append(1) or union(*args))
    layer = set_masks(shiftwise())
    x = inputs(layer)

    def run():
        made.clear()
        kept = layer.kept_kernels()
        count = len(made)
        assert torch.equal(kept, layer.mask.any(0))
        return count

    assert run() == 1
    with torch.inference_mode():
        layer(x)
    assert run() == 0
    set_masks(layer, seed=2)
    assert run() == 1
    layer.mask.data[:, 0] ^= True  # which no version shows
    assert run() == 1
    layer.load_state_dict(set_masks(shiftwise(), seed=3).state_dict())
    assert run() == 1
    assert run() == 0
    twin = copy.deepcopy(layer)
    set_masks(layer, seed=4)
    assert run() == 1
    assert torch.equal(twin.kept_kernels(), twin.mask.any(0))


def test_a_mask_of_inference_can_be_trained_through():
    layer = set_masks(shiftwise(form='fused'))
    with torch.inference_mode():
        layer(inputs(layer))
    layer(inputs(layer)).sum().backward()


def no_form(monkeypatch):
    """Whoever convolves fails."""
    for module, name in ((forms, '_FORMS'), (strip_pair, 'strip_pair_conv'),
                         (fused_launch, 'forward'), (fused_launch, 'backward'),
                         (channel_launch, 'forward'),
                         (channel_launch, 'Deployed')):
        monkeypatch.setattr(module, name, None)


@pytest.mark.parametrize('norm_cfg', [dict(type='BN'), None],
                         ids=['norms', 'no norms'])
def test_a_layer_without_taps_costs_a_copy(norm_cfg, monkeypatch):
    layer = set_masks(shiftwise(norm_cfg=norm_cfg), density=0.)
    plain = copy.deepcopy(layer)
    plain.remove_masks()
    x = inputs(layer)
    expected = [plain.train()(x), plain.eval()(x)]
    outs = [layer.train()(x)]
    layer.eval()
    for name, buffer in plain.named_buffers():  # running statistics
        assert_near(layer.get_buffer(name).double(), buffer.double(), 1e-5)
    deployed = copy.deepcopy(layer)
    deployed.switch_to_deploy()
    no_form(monkeypatch)
    with torch.no_grad():
        outs += [layer(x), deployed(x)]
    for out, wanted in zip(outs, expected + expected[1:], strict=True):
        assert_near(out, wanted)


def count_kernels(monkeypatch):
    """The forms whose kernels are launched from here on."""
    calls = []
    for form, module, name in (
            ('fused', fused_launch, 'backward'),
            ('channels', channel_launch.Deployed, '__call__')):
        launch = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, form=form,
                            launch=launch: calls.append(form) or launch(*args))
    return calls


@pytest.mark.parametrize('form', ['strip', 'fused', 'channels'])
@pytest.mark.parametrize('density', [0., .3, 1.])
@every_layer
def test_deployed_layers(make, density, form, monkeypatch):
    monkeypatch.setattr(strip_pair, '_walk_is_worth',
                        lambda *args: form == 'fused')
    # Whose rule takes the form 'channels'.
    pretend_cpu(monkeypatch, 'Zen 5' if form == 'strip' else 'AVX2')
    layer = set_masks(make(), density).eval()
    x = inputs(layer)
    expected = layer(x).detach()
    layer.switch_to_deploy()
    calls = count_kernels(monkeypatch)
    for given in (x, x.contiguous(memory_format=torch.channels_last)):
        # Whatever the default device is.
        with torch.no_grad(), torch.device('meta'):
            out = layer(given)
        assert_near(out, expected)
    bare = density == 0 and hasattr(layer, 'rep_index')  # a copy
    assert calls == 2 * [form] * (form != 'strip' and not bare)
    assert_near(layer(x), expected)  # where gradients may be needed
    with torch.inference_mode():
        assert_near(layer(x), expected)
    state = layer.state_dict()
    assert {name.rpartition('.')[0] for name in state if 'strip' in name} == {
        'strip_h', 'strip_v'}
    # What changes in whatever way is seen.
    with torch.no_grad():
        for change in (lambda w: w.data.mul_(2), lambda w: w.add_(1)):
            for strip in (layer.strip_h, layer.strip_v):
                change(strip.weight)
            ours = layer(x)
            with torch.enable_grad():
                assert_near(ours, layer(x).detach())
    half = copy.deepcopy(layer).bfloat16()
    with torch.no_grad():
        assert_near(half(x.bfloat16()).float(), ours, 4e-2)


def test_traces_of_deployed_layers_are_convolutions(monkeypatch):
    monkeypatch.setattr(strip_pair, '_walk_is_worth', lambda *args: True)
    layer = set_masks(shiftwise()).eval()
    layer.switch_to_deploy()
    x = inputs(layer)
    with torch.no_grad():
        expected = layer(x)
        graph = torch.jit.trace(layer, x, check_trace=False)
        exported = torch.export.export(layer, (x, ), strict=False)
        for run in (graph, exported.module()):
            assert_near(run(x), expected)
        compiled = torch.compile(layer, backend='aot_eager', fullgraph=True)
        assert_near(compiled(x), expected)
    for kinds in ({n.kind() for n in graph.inlined_graph.nodes()},
                  {str(n.target) for n in exported.graph.nodes}):
        assert not any('shiftwise' in kind for kind in kinds)
        assert any('conv' in kind for kind in kinds)


@every_layer
def test_deployed_layers_are_counted(make, monkeypatch):
    layer = make().eval()
    layer.switch_to_deploy()
    x, calls = inputs(layer), count_kernels(monkeypatch)
    flops = []
    for run in layer, lambda x: strip_pair.strip_pair_conv(
            x, layer.strip_h.weight, layer.strip_v.weight,
            layer.strip_h.bias, layer.spec):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            run(x)
        flops.append(counter.get_total_flops())
    assert flops[0] == flops[1] > 0
    assert not calls


def test_deployed_layers_are_measured(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(autotune, '_memory', {})
    monkeypatch.setattr(autotune, '_ROUNDS', (2, 2))
    layer = set_masks(shiftwise()).eval()
    x = inputs(layer)
    expected = layer(x).detach()
    layer.switch_to_deploy()
    set_autotune(True)
    try:
        with torch.no_grad():
            assert_near(layer(x), expected)
            (case, entry), = next(iter(autotune._memory.values())).items()
            assert set(entry['ms']) == {'strip', 'fused', 'channels'}
            assert 'outputs deployed, density ' in case
            calls = count_kernels(monkeypatch)
            for form in ('fused', 'strip', 'channels'):
                entry['form'] = form
                calls.clear()
                assert_near(layer(x), expected)
                assert calls == [form] * (form != 'strip')
    finally:
        set_autotune(False)


@pytest.mark.parametrize('vectors', ['AVX2', 'Zen 5', 'AVX512'])
def test_the_rule_for_deployed_layers(monkeypatch, vectors):
    pretend_cpu(monkeypatch, vectors)
    narrow, wide = (shiftwise(kernel_size=51, small_kernel=n).spec
                    for n in (3, 5))
    large, small = (torch.empty(1).expand(4, 124, size, size)
                    for size in (56, 14))
    half = torch.empty(1).expand(4, 120, 28, 28)

    def worth(x, spec, density, other='strip'):
        return strip_pair._walk_is_worth(x, spec, density, other)

    assert worth(large, narrow, .3)
    assert worth(large, narrow, 1.) == (vectors != 'Zen 5')
    assert worth(half, narrow, .7) == (vectors != 'Zen 5')
    assert worth(large, wide, 1.)
    assert not worth(small, wide, .3)
    for x, spec, density in ((large, wide, .3), (large, narrow, .25),
                             (half, wide, .2)):
        assert worth(x, spec, density, 'channels')
    for x, spec, density in ((large, wide, .4), (large, narrow, .35),
                             (half, narrow, .3), (small, wide, .1),
                             (large[:0], wide, .1)):
        assert not worth(x, spec, density, 'channels')


@pytest.mark.parametrize('form', ['auto', 'fused'])
def test_a_compiled_layer_sees_changes_of_its_mask(form):
    layer = set_masks(shiftwise(form=form))
    x = inputs(layer)
    compiled = torch.compile(layer, backend='aot_eager', fullgraph=True)
    for seed in (2, 3):
        weights = copy.deepcopy(layer.state_dict())
        set_masks(layer, seed=seed)
        assert_near(compiled(x), layer(x))
        layer.load_state_dict({**weights, 'mask': layer.mask.clone()})
        assert_near(compiled(x), layer(x))  # weights that are not zero
