"""What a state dict tells, and what it leaves open."""
import pytest
import torch
from golden import FILES, read_golden
from published import DEPTHS, DIMS, FAMILIES, make, published

from shiftwise_mm.checkpoint import Facts, convert_state_dict, describe
from shiftwise_mm.checkpoint.describe import describe_model, fitting_kernels

WIDE = tuple(int(dim * 1.3) for dim in DIMS)
KERNELS = (51, 49, 47, 13)


def facts_of(family, native=True, args=None, **options):
    net = make(family, **options)
    state = net.state_dict() if native else convert_state_dict(
        published(family, net), head='head.')[0]
    return describe(state, args)


@pytest.mark.parametrize('native', [True, False])
def test_shiftwise(native):
    facts = facts_of('v2', native, ghost_ratio=.4, num_paths=3, num_reps=2)
    assert facts == Facts(
        family='ShiftWiseNet', style='unirep', deploy=False, in_channels=3,
        embed_dims=DIMS, depths=DEPTHS, small_kernel=3, taps=(17, 17, 16, 5),
        kernel_sizes=KERNELS if native else (None, ) * 4,
        convolved=(4, 6, 8, 12), num_paths=3, num_reps=2 if native else None,
        layer_scale=True, num_classes=None if native else 7)


def test_slak_style_and_other_options():
    facts = facts_of('v1', kernel_sizes=(21, 17, 15, 5), small_kernel=5,
                     layer_scale_init_value=None, in_channels=4)
    assert (facts.style, facts.small_kernel) == ('slak', 5)
    assert facts.kernel_sizes == (21, 17, 15, 5)
    assert facts.taps == (5, 4, 3, 1)
    assert facts.layer_scale is False and facts.in_channels == 4
    # C - int(C * 0.23)
    assert facts.convolved == (7, 10, 13, 16)


@pytest.mark.parametrize('size', range(3, 26))
def test_kernels_from_tables_give_the_same_function(size):
    """Even kernels may be told as odd ones with the same half and taps."""
    net = make('v2', kernel_sizes=(size, 5, 5, 5))
    told = describe(net.state_dict()).kernel_sizes[0]
    assert told // 2 == size // 2 and -(-told // 3) == -(-size // 3)
    assert told == size or size % 2 == 0


@pytest.mark.parametrize('family', ['v2', 'v1'])
def test_deployed_shiftwise(family):
    net = make(family)
    before = describe(net.state_dict())
    net.switch_to_deploy()
    facts = describe(net.state_dict())
    assert facts.deploy and not before.deploy
    assert facts.num_paths is None and facts.layer_scale is None
    for name in ('family', 'style', 'taps', 'kernel_sizes', 'small_kernel',
                 'convolved', 'num_reps', 'depths', 'embed_dims'):
        assert getattr(facts, name) == getattr(before, name), name


@pytest.mark.parametrize('family, form, exact', [
    ('slak', 'large', True), ('slak as shiftwise', 'shiftwise', False),
    ('slak gated', 'shared_gated', False)])
def test_slak(family, form, exact):
    facts = facts_of(family, False)
    assert facts == Facts(
        family='SLaK', form=form, in_channels=3,
        embed_dims=DIMS if form == 'shared_gated' else WIDE, depths=DEPTHS,
        small_kernel=5, taps=(11, 10, 10, 3),
        kernel_sizes=KERNELS if exact else (None, ) * 4, layer_scale=True,
        num_classes=7)
    net = make(family)
    net.switch_to_deploy()
    deployed = describe(net.state_dict())
    assert deployed.family == 'SLaK' and deployed.deploy
    assert deployed.kernel_sizes == facts.kernel_sizes
    assert deployed.taps == facts.taps


def test_unireplknet_and_convnext():
    facts = facts_of('unireplknet', False)
    assert facts.family == 'UniRepLKNet' and not facts.deploy
    assert facts.kernel_sizes == ((3, ), (13, 5), (7, ), (9, ))
    net = make('unireplknet')
    net.switch_to_deploy()
    deployed = describe(net.state_dict())
    assert deployed.deploy and deployed.kernel_sizes == facts.kernel_sizes
    facts = facts_of('convnext', False)
    assert facts == Facts(family='ConvNeXt', in_channels=3, embed_dims=DIMS,
                          depths=DEPTHS, layer_scale=True, num_classes=7)


@pytest.mark.parametrize('args, kernels, reps', [
    (dict(kernel_size=[49, 51, 47, 15, 3], N_rep=2), (49, 51, 47, 15), 2),
    (dict(kernel_size=[51, 49, 47, 13, 5]), (None, ) * 4, None),
    (dict(kernel_size=[5, 49, 47, 13, 3]), (None, ) * 4, None),
    (dict(kernel_size='51,49'), (None, ) * 4, None),
    (dict(kernel_size=[51, 3]), (None, ) * 4, None),
    (dict(kernel_size=[51, 49, 47, 0, 3], N_rep='4'), (None, ) * 4, None)])
def test_the_options_of_the_training(args, kernels, reps):
    facts = facts_of('v2', False, args)
    assert facts.kernel_sizes == kernels and facts.num_reps == reps


def test_the_options_of_published_files():
    content = read_golden('sw_v2_as_published.pth')
    facts = describe(convert_state_dict(content['model'])[0],
                     vars(content['args']))
    assert facts.kernel_sizes == KERNELS
    assert (facts.num_reps, facts.ghost_ratio) == (4, .23)


@pytest.mark.parametrize('file', FILES)
def test_golden_files(file):
    golden = read_golden(file)
    config = golden['config']
    facts = describe(convert_state_dict(golden['state_dict'],
                                        head='head.')[0])
    factor = config.get('width_factor', 1)
    assert facts.embed_dims == tuple(int(d * factor) for d in config['dims'])
    assert facts.depths == tuple(config['depths'])
    assert facts.num_classes == config['num_classes']
    if 'N_path' in config:
        assert facts.num_paths == config['N_path']
        assert facts.convolved == tuple(
            len(golden['tables'][f'stages.{i}.0.large_kernel']['rep'])
            for i in range(4))
    if 'kernel_size' in config:
        *sizes, small = config['kernel_size']
        assert facts.small_kernel == small
        assert facts.taps == tuple(-(-size // small) for size in sizes)
        for size, taps in zip(sizes, facts.taps, strict=True):
            assert size in fitting_kernels(taps, small)


def test_fitting_kernels():
    assert fitting_kernels(17, 3) == (49, 51)
    assert fitting_kernels(16, 3) == (47, )
    assert fitting_kernels(11, 5) == (51, 53, 55)
    assert fitting_kernels(1, 3) == (1, 3)


@pytest.mark.parametrize('family', FAMILIES)
def test_a_model_is_described_like_its_file(family):
    net = make(family, strict_load=False)
    file, model = describe(net.state_dict()), describe_model(net)
    for name in ('family', 'style', 'depths', 'embed_dims', 'taps',
                 'num_paths', 'num_reps', 'convolved', 'small_kernel',
                 'layer_scale', 'deploy'):
        assert getattr(file, name) == getattr(model, name), name
    if file.family in ('SLaK', 'ShiftWiseNet'):
        assert model.kernel_sizes == KERNELS


@pytest.mark.parametrize('state', [
    {}, {'conv1.weight': torch.ones(1)},
    {'stages.0.0.attn.weight': torch.ones(1)},
    {'stages.0.0.large_kernel.convs.0.weight': 3},
], ids=['nothing', 'resnet', 'swin', 'no tensor'])
def test_strangers(state):
    assert describe(state) == Facts()


@pytest.mark.parametrize('family', FAMILIES)
def test_fragments_do_not_raise(family):
    """A truncated file must reach the check that tells what is missing."""
    state = published(family, make(family))
    names = list(state)
    for i in range(0, len(names), 7):
        part = {name: state[name] for name in names[i:i + 5]}
        describe(convert_state_dict(part)[0])
    for shape in ((), (1, ), (1, 1)):
        describe(convert_state_dict(
            {name: torch.ones(shape) for name in names})[0])
