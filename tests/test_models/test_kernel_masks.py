"""Masks on layers: there only when asked for, and the rest as before."""
import copy

import pytest
import torch
from helpers import assert_near, randomise_norms
from mmengine.runner import load_state_dict

from shiftwise_mm.models import ShiftWiseConv2d
from shiftwise_mm.models.layers.decomposed_conv2d import DecomposedConv2d


def shiftwise(**options):
    torch.manual_seed(0)
    return ShiftWiseConv2d(6, kernel_size=13, num_paths=3, ghost_ratio=.3,
                           **options)


def decomposed(form='shiftwise', **options):
    torch.manual_seed(0)
    return DecomposedConv2d(4, 13, small_kernel=5, form=form, **options)


# Layer, granularity, shapes of its masks: k is 5 (13/3) and 3 (13/5).
LAYERS = {
    'shift-wise': (shiftwise, 'tap', {'mask': (3, 20)}),
    'shift-wise, weights': (shiftwise, 'weight', {'mask': (3, 20, 3, 3)}),
    'SLaK, large, weights': (
        lambda: decomposed('large'), 'weight',
        {'mask_h': (1, 4, 5, 13), 'mask_v': (1, 4, 13, 5)}),
    'SLaK': (decomposed, 'tap', {'mask_h': (1, 12), 'mask_v': (1, 12)}),
    'SLaK, weights': (decomposed, 'weight', {'mask_h': (1, 12, 5, 5),
                                             'mask_v': (1, 12, 5, 5)}),
    'SLaK, gated': (lambda: decomposed('shared_gated'), 'tap',
                    {'mask': (1, 12)}),
}
every_layer = pytest.mark.parametrize('make, granularity, shapes',
                                      LAYERS.values(), ids=LAYERS)


def set_random(layer, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for name in layer.masked_kernels():
        shape = getattr(layer, name).shape
        layer.set_mask(name, torch.rand(shape, generator=generator) < .5)


@every_layer
def test_masks_are_added_and_removed(make, granularity, shapes):
    layer = make()
    before = set(layer.state_dict())
    assert not any('mask' in name for name in before)
    layer.add_masks(granularity)
    state = layer.state_dict()
    assert {name: tuple(state[name].shape)
            for name in set(state) - before} == shapes
    for name in shapes:
        assert state[name].dtype == torch.bool and state[name].all()
    set_random(layer)
    kept = {name: getattr(layer, name).clone() for name in shapes}
    layer.add_masks(granularity)  # those that fit stay
    for name, mask in kept.items():
        assert torch.equal(getattr(layer, name), mask)
    layer.remove_masks()
    assert set(layer.state_dict()) == before


@every_layer
def test_set_mask_makes_weights_zero(make, granularity, shapes):
    layer = make()
    layer.add_masks(granularity)
    before = copy.deepcopy(layer)
    set_random(layer)
    for name, weights in layer.masked_kernels().items():
        mask = getattr(layer, name)
        for path, (weight, old) in enumerate(zip(
                weights, before.masked_kernels()[name], strict=True)):
            for unit in range(len(weight)):
                flags = mask[path, unit].expand_as(weight[unit, 0])
                assert torch.equal(weight[unit, 0],
                                   torch.where(flags, old[unit, 0], 0.))
    others = {name for name, _ in layer.named_parameters()} - {
        'convs.0.weight', 'convs.1.weight', 'convs.2.weight', 'conv.weight',
        'conv_h.weight', 'conv_v.weight'}
    assert others
    for name in others:
        assert torch.equal(layer.get_parameter(name),
                           before.get_parameter(name))


@every_layer
def test_the_union_is_what_any_path_keeps(make, granularity, shapes):
    layer = make()
    assert layer.union_mask(next(iter(shapes))) is None
    layer.add_masks(granularity)
    set_random(layer)
    for name in shapes:
        union = layer.union_mask(name)
        mask = getattr(layer, name)
        assert union.dtype == torch.bool and union.shape == mask.shape[1:2]
        for unit in range(len(union)):
            assert union[unit] == mask[:, unit].any()
        union.fill_(True)  # a tensor of its own
        assert not getattr(layer, name).all()


def test_a_tap_masked_in_all_paths_is_not_in_the_union():
    layer = shiftwise()
    layer.add_masks('tap')
    mask = torch.ones_like(layer.mask)
    mask[:, 7] = mask[0, 3] = False
    layer.set_mask('mask', mask)
    assert layer.union_mask().logical_not().nonzero().flatten().tolist() == [7]
    assert not layer.merged_weight()[7].any()
    assert layer.merged_weight()[3].any()


@pytest.mark.parametrize('granularity', ['taps', None, 'coarse'])
def test_an_unknown_granularity_is_named(granularity):
    with pytest.raises(ValueError, match="granularity must be one of .*'tap'"):
        shiftwise().add_masks(granularity)


def test_long_kernels_have_no_taps():
    with pytest.raises(ValueError, match="kernels of 5x13.*form='shiftwise'"):
        decomposed('large').add_masks('tap')


@every_layer
def test_state_dicts_with_masks(make, granularity, shapes):
    """Into a layer with masks, and into one without."""
    source = make()
    source.add_masks(granularity)
    set_random(source)
    target = make()
    target.add_masks(granularity)
    target.load_state_dict(source.state_dict())
    for name in shapes:
        assert torch.equal(getattr(target, name), getattr(source, name))
    plain = make()
    given = source.state_dict()
    missing, unexpected = plain.load_state_dict(given, strict=True)
    assert not missing and not unexpected and set(shapes) <= set(given)
    assert not set(shapes) & set(plain.state_dict())
    for name, weight in plain.named_parameters():
        assert torch.equal(weight, source.get_parameter(name))


@every_layer
def test_state_dicts_without_masks(make, granularity, shapes):
    source, target = make(), make()
    target.add_masks(granularity)
    set_random(target)
    kept = {name: getattr(target, name).clone() for name in shapes}
    target.load_state_dict(source.state_dict(), strict=True)
    # mmengine's own way to load, which logs what is missing.
    load_state_dict(target, source.state_dict(), strict=True)
    for name, mask in kept.items():
        assert torch.equal(getattr(target, name), mask)


def test_a_mask_of_another_shape_is_named():
    source, target = shiftwise(), shiftwise()
    source.add_masks('weight')
    target.add_masks('tap')
    with pytest.raises(ValueError, match=r'mask of the checkpoint has the '
                       r'shape \(3, 20, 3, 3\), .* \(3, 20\): granularity'):
        target.load_state_dict(source.state_dict())


@every_layer
def test_deployed_layers_have_no_masks(make, granularity, shapes):
    layer = make()
    randomise_norms(layer)
    layer.add_masks(granularity)
    set_random(layer)
    x = torch.randn(2, 6 if 'convs' in layer._modules else 4, 9, 14)
    expected = layer.eval()(x).detach()
    layer.switch_to_deploy()
    assert not layer.masked_kernels()
    assert not any('mask' in name for name in layer.state_dict())
    layer.add_masks(granularity)
    assert not any('mask' in name for name in layer.state_dict())
    assert_near(layer(x).detach(), expected)


@pytest.mark.parametrize('old, new', [('large', 'shiftwise'),
                                      ('shiftwise', 'large')])
def test_masks_are_of_one_form(old, new):
    layer = decomposed(old)
    if old == 'shiftwise':  # what a long kernel can hold
        for name, shape in ('h', (5, 13)), ('v', (13, 5)):
            layer._weight(name).data.copy_(layer.as_form(
                torch.randn(4, 1, *shape), name, old))
    layer.add_masks('weight')
    set_random(layer)
    state = layer.state_dict()
    other = decomposed(new)
    other.adapt_state_dict(state, '')
    assert not any('mask' in name for name in state)
    other.load_state_dict(state, strict=True)
    layer.switch_form(new)
    assert not any('mask' in name for name in layer.state_dict())
    # The zeros are there all the same.
    assert (layer.conv_h.weight == 0).any()
    assert torch.equal(layer.conv_h.weight, other.conv_h.weight)
    same = decomposed(old)
    same.add_masks('weight')
    set_random(same)
    state = same.state_dict()
    same.adapt_state_dict(state, '')
    assert {'mask_h', 'mask_v'} <= set(state)


def test_masks_move_with_the_layer():
    layer = shiftwise()
    layer.add_masks('tap')
    set_random(layer)
    halved = copy.deepcopy(layer).half()
    assert halved.mask.dtype == torch.bool
    assert torch.equal(halved.mask, layer.mask)
    assert layer.to('meta').mask.is_meta
