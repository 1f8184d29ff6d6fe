"""Strictness: weights of another model are refused, the cause by name."""
import logging
import re

import pytest
import torch
import torch.nn as nn
from published import (
    DIMS,
    FAMILIES,
    MINI,
    make,
    outputs,
    published,
    published_file,
)

from shiftwise_mm.models import ConvNeXt, ShiftWiseNet, SLaK, UniRepLKNet

every_family = pytest.mark.parametrize('family', FAMILIES)


def assert_same(net, other):
    for ours, expected in zip(outputs(net), outputs(other), strict=True):
        assert torch.equal(ours, expected)


@pytest.fixture
def logged(monkeypatch):
    """What is logged, with its level."""
    records = []
    monkeypatch.setattr(
        'shiftwise_mm.checkpoint.load_hook.print_log',
        lambda text, logger, level=logging.INFO: records.append(
            (level, text)))
    return records


@every_family
@pytest.mark.parametrize('strict', [True, False])
@pytest.mark.parametrize('prefix', ['', 'module.backbone.'])
def test_the_inner_dict_loads(family, strict, prefix, logged):
    source = make(family)
    net = make(family, seed=1)
    net.load_state_dict({prefix + name: value for name, value in
                         published(family, source).items()}, strict=strict)
    assert_same(net, source)
    (level, text), = logged
    assert level == logging.INFO and FAMILIES[family][2] in text


@every_family
def test_native_weights_load_without_a_word(family, logged):
    source, net = make(family), make(family, seed=1)
    state = source.state_dict()
    result = net.load_state_dict(state)
    assert not result.missing_keys and not result.unexpected_keys
    assert list(state) == list(source.state_dict())
    assert_same(net, source)
    assert not logged


@every_family
def test_a_whole_checkpoint_loads(family):
    source, net = make(family), make(family, seed=1)
    net.load_state_dict(published_file(family, source))
    assert_same(net, source)


def test_inside_another_module():
    """Published names under the prefix, as in a published detector."""
    source = make('v2')
    model = nn.Module()
    model.backbone = make('v2', seed=1)
    model.neck = nn.Linear(2, 2)
    state = {f'backbone.{name}': value for name, value in
             published('v2', source).items()
             if name.startswith(('stages', 'down'))}
    state['neck.weight'] = torch.ones(2, 2)
    state['neck.bias'] = torch.ones(2)
    before = dict(state)
    result = model.load_state_dict(state)
    assert not result.missing_keys and not result.unexpected_keys
    assert state == before
    assert_same(model.backbone, source)
    assert model.neck.weight.eq(1).all()


def test_output_norms_may_be_absent_or_have_no_place(logged):
    with_norms = make('v2', norm_out=True)
    make('v2', norm_out=True).load_state_dict(make('v2').state_dict(),
                                              strict=False)
    assert not logged
    net = make('v2', norm_out=True, out_indices=(1, 3), seed=1)
    net.load_state_dict(with_norms.state_dict())
    assert torch.equal(net.norm3.weight, with_norms.norm3.weight)
    (_, text), = logged
    assert 'an output norm that the model has not: norm0.weight' in text
    assert 'norm1' not in text


def test_counters_of_batch_norms_may_be_absent():
    state = {name: value for name, value in published('v2', make(
        'v2')).items() if not name.endswith('num_batches_tracked')}
    make('v2').load_state_dict(state)


NAMED = {
    'small kernel': (
        'v1', {}, lambda **o: ShiftWiseNet(MINI, style='slak', small_kernel=3,
                                           **o),
        'stage 0 has 11 taps in the file, 17 in the model: kernel_sizes[0]=51 '
        'with small_kernel=3; the file fits small_kernel=5'),
    'kernel size': (
        'v2', {}, lambda **o: ShiftWiseNet(MINI, kernel_sizes=(
            51, 31, 47, 13), **o),
        'stage 1 has 17 taps in the file, 11 in the model: kernel_sizes[1]=31 '
        'with small_kernel=3; the file fits kernel_sizes[1] of 49 or 51'),
    'both': (
        'v2', dict(kernel_sizes=(31, 29, 27, 13)),
        lambda **o: ShiftWiseNet(MINI, small_kernel=5, **o),
        'kernel_sizes[0]=51 with small_kernel=5; the file fits small_kernel=3 '
        'with kernel_sizes[0] of 31 or 33'),
    'width': (
        'v2', {}, lambda **o: ShiftWiseNet(dict(
            embed_dims=(16, 24, 32, 40), depths=(1, 2, 1, 1)), **o),
        f'embed_dims={DIMS} in the file, (16, 24, 32, 40) in the model '
        '(arch or width_factor: the file is 0.5 times as wide)'),
    'width factor': (
        'slak', {}, lambda **o: SLaK(MINI, width_factor=1., **o),
        'embed_dims=(10, 15, 20, 26) in the file, (8, 12, 16, 20) in the '
        'model (arch or width_factor: the file is 1.3 times as wide)'),
    'depth': (
        'v2', {}, lambda **o: ShiftWiseNet(dict(
            embed_dims=DIMS, depths=(1, 1, 1, 1)), **o),
        'depths=(1, 2, 1, 1) in the file, (1, 1, 1, 1) in the model'),
    'fewer blocks in the file': (
        'convnext', {}, lambda **o: ConvNeXt(dict(
            embed_dims=DIMS, depths=(1, 3, 1, 1)), **o),
        'depths=(1, 2, 1, 1) in the file, (1, 3, 1, 1) in the model'),
    'style': (
        'v1', {}, lambda **o: ShiftWiseNet(MINI, **o),
        "the file has style='slak', the model 'unirep'"),
    'form': (
        'slak gated', {}, lambda **o: SLaK(MINI, width_factor=1., **o),
        "the file has form='shared_gated', the model 'large'"),
    'paths': (
        'v2', dict(num_paths=1), lambda **o: ShiftWiseNet(MINI, **o),
        'num_paths=1 in the file, 2 in the model'),
    'more paths': (
        'v2', dict(num_paths=3), lambda **o: ShiftWiseNet(MINI, **o),
        'num_paths=3 in the file, 2 in the model'),
    'ghosts': (
        'v2', {}, lambda **o: ShiftWiseNet(MINI, ghost_ratio=0., **o),
        'stage 0 convolves 6 of 8 channels in the file, 8 in the model: '
        'ghost_ratio=0.0; the file fits about 0.25'),
    'layer scale': (
        'v2', dict(layer_scale_init_value=None),
        lambda **o: ShiftWiseNet(MINI, **o),
        'the file has no layer scale: layer_scale_init_value must be None'),
    'no layer scale': (
        'convnext', {}, lambda **o: ConvNeXt(MINI, layer_scale_init_value=0,
                                             **o),
        'the file has a layer scale, the model none'),
    'channels of the input': (
        'v2', dict(in_channels=1), lambda **o: ShiftWiseNet(MINI, **o),
        'in_channels=1 in the file, 3 in the model'),
    'another family': (
        'slak', {}, lambda **o: ShiftWiseNet(MINI, **o),
        'the file is of a SLaK, the model is a ShiftWiseNet'),
    'kernels of UniRepLKNet': (
        'unireplknet', {}, lambda **o: UniRepLKNet(dict(
            **MINI, kernel_sizes=(3, 13, 7, 9)), **o),
        'kernel_sizes=((3,), (13, 5), (7,), (9,)) in the file, ((3,), (13, '
        '13), (7,), (9,)) in the model'),
    'training form': (
        'v2', {}, lambda **o: ShiftWiseNet(MINI, deploy=True, **o),
        'the file holds the training form, the model is built with '
        'deploy=True: load it with deploy=False, then call '
        'switch_to_deploy()'),
}


@pytest.mark.parametrize('case', NAMED)
def test_the_cause_is_named_first(case):
    family, options, build, words = NAMED[case]
    state = published(family, make(family, **options))
    with pytest.raises(ValueError) as caught:
        build().load_state_dict(state, strict=False)
    text = str(caught.value)
    assert words in text
    start = f'{type(build()).__name__} cannot load these weights: '
    assert text.startswith(start)
    assert 'strict_load=False' in text
    # Behind the causes, some keys.
    problems = re.findall(r'(?:missing|another shape|unknown): \w+', text)
    assert problems and text.index(words) < text.index(problems[0])


@pytest.mark.parametrize('family', ['v2', 'v1', 'slak', 'slak gated',
                                    'unireplknet'])
def test_deployed_weights_in_a_training_model(family):
    deployed = make(family)
    deployed.switch_to_deploy()
    with pytest.raises(ValueError, match='the file holds the deployed form: '
                       'build the model with deploy=True'):
        make(family).load_state_dict(deployed.state_dict())
    net = make(family, deploy=True)
    net.load_state_dict(deployed.state_dict())
    assert_same(net, deployed)


@pytest.mark.parametrize('option, words', [
    (dict(num_reps=2), 'num_reps=2 in the file, 4 in the model'),
    (dict(kernel_sizes=(49, 49, 47, 13)),
     r'kernel_sizes\[0\]=49 in the file, 51 in the model')])
@pytest.mark.parametrize('strict_load', [True, False])
def test_tables_that_disagree(option, words, strict_load):
    """Their shapes may be the same, the function is another."""
    state = make('v2', **option).state_dict()
    net = make('v2', strict_load=strict_load)
    with pytest.raises(ValueError,
                       match=words if strict_load else 'not the table'):
        net.load_state_dict(state, strict=False)


@pytest.mark.parametrize('args, words', [
    (dict(kernel_size=[49, 49, 47, 13, 3]),
     r'kernel_sizes\[0\]=49 in the file, 51 in the model'),
    (dict(kernel_size=[51, 49, 47, 15, 3]),
     r'kernel_sizes\[3\]=15 in the file, 13 in the model'),
    (dict(N_rep=1), 'num_reps=1 in the file, 4 in the model')])
def test_options_of_the_training_that_disagree(args, words):
    checkpoint = published_file('v2', make('v2'), **args)
    with pytest.raises(ValueError, match=words):
        make('v2').load_state_dict(checkpoint)
    make('v2', strict_load=False).load_state_dict(checkpoint)


def test_kernels_of_slak_are_compared_between_its_forms():
    state = published('slak', make('slak', kernel_sizes=(53, 49, 47, 13)))
    net = SLaK(MINI, form='shiftwise')
    with pytest.raises(ValueError, match=r'kernel_sizes\[0\]=53 in the file, '
                       '51 in the model'):
        net.load_state_dict(state)


@pytest.mark.parametrize('one, other', [('large', 'shiftwise'),
                                        ('shiftwise', 'large')])
def test_forms_of_slak_take_each_others_weights(one, other):
    families = dict(large='slak', shiftwise='slak as shiftwise')
    source = make(families['large'])
    source.switch_form(one)
    net = make(families[other])
    net.load_state_dict(published(families[one], source))
    for ours, expected in zip(outputs(net), outputs(source), strict=True):
        assert torch.allclose(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('spoil, words', [
    (lambda s: {}, 'all of its 230 tensors are missing, there are none in '
     "the file.*init_cfg=dict.*load_pretrained.*ConvertPretrainedHook"),
    (lambda s: {'conv1.weight': torch.ones(2), 'fc.bias': torch.ones(1)},
     'none of ours, by its names, such as conv1.weight, fc.bias.*missing'),
    (lambda s: {k: v for k, v in s.items() if 'stages.2' not in k},
     r'depths=\(1, 2, 0, 1\) in the file.*missing: stages.2'),
    (lambda s: {k: v for k, v in s.items() if '.norm.' not in k},
     r'the file is incomplete or of another version; missing: '
     r'stages.0.0.norm.weight, .*\(20\)'),
    (lambda s: {k: v for k, v in s.items() if '.pwconv' not in k},
     'weights: the file is incomplete or of another version; missing'),
    (lambda s: {**s, 'stages.0.0.gamma': torch.ones(3)},
     r'options.*another shape: stages.0.0.gamma \(3,\) instead of \(8,\)'),
    (lambda s: {**s, 'stages.0.0.extra': torch.ones(3)},
     'unknown: stages.0.0.extra'),
    (lambda s: {**s, 'total_ops': torch.ones(1)}, 'unknown: total_ops'),
    (lambda s: dict(epoch=3, optimizer={}), 'none of ours.*epoch, optimizer'),
])
def test_partial_loads(spoil, words, logged):
    state = spoil(published('v2', make('v2')))
    with pytest.raises(ValueError, match=words):
        make('v2').load_state_dict(state, strict=False)
    assert not logged


def test_deployed_forms_of_slak_differ_by_their_strips():
    source = make('slak')
    source.switch_to_deploy()
    net = make('slak as shiftwise', deploy=True)
    with pytest.raises(ValueError, match="form='large', the model "
                       "'shiftwise'; another shape: .*strip_h"):
        net.load_state_dict(source.state_dict())
    gated = make('slak gated', deploy=True)
    shiftwise = SLaK(MINI, width_factor=1., form='shiftwise', norm_out=False)
    shiftwise.switch_to_deploy()
    gated.load_state_dict(shiftwise.state_dict())


def test_none_under_the_prefix():
    model = nn.Module()
    model.backbone = make('v2')
    with pytest.raises(ValueError, match="missing, there are none under "
                       "'backbone.'.*ConvertPretrainedHook"):
        model.load_state_dict(published('v2', make('v2')), strict=False)


def test_without_strict_load_what_fits_is_loaded(logged):
    source = make('v2')
    state = published('v2', source)
    del state['stages.1.1.norm.weight']
    state['stages.0.0.gamma'] = torch.ones(3)
    state['total_ops'] = torch.ones(1)
    net = make('v2', seed=1, strict_load=False)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.load_state_dict(state, strict=False)
    kept = {'stages.1.1.norm.weight', 'stages.0.0.gamma'}
    for name, value in net.state_dict().items():
        expected = before[name] if name in kept else source.state_dict()[name]
        assert torch.equal(value, expected), name
    warning, = [text for level, text in logged if level == logging.WARNING]
    assert 'loads what fits' in warning
    for name in (*kept, 'total_ops'):
        assert name in warning


def test_without_strict_load_nothing_need_fit(logged):
    net = make('v2', strict_load=False)
    before = outputs(net)
    net.load_state_dict({'conv1.weight': torch.ones(2)}, strict=False)
    for a, b in zip(outputs(net), before, strict=True):
        assert torch.equal(a, b)
    assert [level for level, _ in logged][-1] == logging.WARNING


SPARSE = {
    'v2': 'tap', 'v1': 'weight', 'slak': 'weight', 'slak as shiftwise': 'tap',
    'slak gated': 'tap'}


def sparse(family, granularity, seed=0):
    """A mini network with masks, each of them with zeros."""
    net = make(family, seed)
    generator = torch.Generator().manual_seed(seed)
    for stage in net.stages:
        for block in stage:
            layer = block.large_kernel
            layer.add_masks(granularity)
            for name in layer.masked_kernels():
                shape = getattr(layer, name).shape
                layer.set_mask(name, torch.rand(shape,
                                                generator=generator) < .6)
    return net


@pytest.mark.parametrize('family, granularity', SPARSE.items())
@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_masks_into_a_network_without(family, granularity, prefix, logged):
    """The function is the same; the masks are left out, and said so."""
    source, net = sparse(family, granularity), make(family, seed=1)
    names = [name for name in source.state_dict() if '.mask' in name]
    assert len(names) in (5, 10)
    net.load_state_dict({prefix + name: value for name, value
                         in source.state_dict().items()}, strict=True)
    assert_same(net, source)
    assert not any('.mask' in name for name in net.state_dict())
    (level, text), = logged
    assert level == logging.INFO
    assert 'ignored, a mask of sparse training: the model has none' in text
    assert names[0] in text


@pytest.mark.parametrize('family, granularity', SPARSE.items())
def test_masks_into_a_network_with_masks(family, granularity, logged):
    source, net = sparse(family, granularity), sparse(family, granularity, 1)
    net.load_state_dict(source.state_dict(), strict=True)
    for name, value in source.state_dict().items():
        assert torch.equal(net.state_dict()[name], value), name
    # Published and dense files leave them.
    before = net.state_dict()
    other = make(family, seed=2)
    for weights in (published(family, other), other.state_dict()):
        net.load_state_dict(weights)
        for name, value in net.state_dict().items():
            expected = before if '.mask' in name else other.state_dict()
            assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize('old, new', [('slak', 'slak as shiftwise'),
                                      ('slak as shiftwise', 'slak')])
@pytest.mark.parametrize('masked', [True, False])
def test_masks_of_the_other_form_of_slak(old, new, masked):
    """The zeros come along, the masks do not."""
    source = make(old)
    if old != 'slak':  # what long kernels can hold
        source.load_state_dict(make('slak').state_dict())
    for stage in source.stages:
        for block in stage:
            layer = block.large_kernel
            layer.add_masks('weight')
            for name, (weight, ) in layer.masked_kernels().items():
                mask = torch.rand_like(weight[:, 0]) < .6
                layer.set_mask(name, mask[None])
    net = sparse(new, 'weight', 1) if masked else make(new, seed=1)
    masks = {name: value.clone() for name, value in net.state_dict().items()
             if '.mask' in name}
    net.load_state_dict(source.state_dict())
    for name, mask in masks.items():
        assert torch.equal(net.state_dict()[name], mask)
    for ours, expected in zip(outputs(net), outputs(source), strict=True):
        assert torch.allclose(ours, expected, atol=1e-4)


@pytest.mark.parametrize('strict_load', [True, False])
def test_masks_of_another_granularity(strict_load):
    source, net = sparse('v2', 'weight'), sparse('v2', 'tap', 1)
    net.strict_load = strict_load
    with pytest.raises(ValueError, match=r'stages\.0\.0\.large_kernel\.mask '
                       r'.*\(2, 102, 3, 3\)'):
        net.load_state_dict(source.state_dict())


def test_a_mask_without_its_layer():
    state = make('v2').state_dict()
    state['stages.0.1.large_kernel.mask'] = torch.ones(2, 102) > 0
    with pytest.raises(ValueError,
                       match=r'unknown: stages\.0\.1\.large_kernel\.mask'):
        make('v2').load_state_dict(state)
