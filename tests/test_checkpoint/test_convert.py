"""Published names become ours, and nothing else changes."""
import pytest
import torch
from golden import FILES, backbone_cfg, read_golden
from published import FAMILIES, make, published

from shiftwise_mm.checkpoint import convert_state_dict
from shiftwise_mm.checkpoint.convert import stage_densities

every_family = pytest.mark.parametrize('family', FAMILIES)
CONVERTED = [f for f, (_, renames, _) in FAMILIES.items() if renames]


def without_tables(state):
    return {name: value for name, value in state.items()
            if not name.rpartition('.')[2].startswith(
                ('rep_', 'ghost_', 'shift_'))}


@every_family
@pytest.mark.parametrize('prefix', ['', 'module.', 'backbone.',
                                    'module.backbone.'])
def test_every_family_with_every_prefix(family, prefix):
    net = make(family)
    given = {prefix + name: value
             for name, value in published(family, net).items()}
    before = dict(given)
    converted, report = convert_state_dict(given)
    expected = without_tables(net.state_dict())
    assert set(converted) == set(expected)
    for name, value in expected.items():
        assert converted[name].data_ptr() == value.data_ptr(), name
    assert given == before
    assert report.recognised.startswith(FAMILIES[family][2])
    assert report.prefix == prefix
    assert {prefix + 'norm.weight', prefix + 'norm.bias',
            prefix + 'head.weight', prefix + 'head.bias'} == set(
                report.ignored)
    assert set(report.names.values()) == set(expected)
    assert bool(report.converted) == (family in CONVERTED)


@every_family
def test_native_names_pass_through_untouched(family):
    state = make(family, norm_out=True).state_dict()
    converted, report = convert_state_dict(state)
    assert list(converted) == list(state)
    assert all(converted[name] is value for name, value in state.items())
    assert not report.changed and not report.converted
    assert report.recognised


@every_family
def test_the_classifier_is_mapped_on_request(family):
    net = make(family)
    given = published(family, net)
    converted, report = convert_state_dict(given, prefix='backbone.',
                                           head='head.')
    assert not report.ignored
    heads = {name: value for name, value in converted.items()
             if not name.startswith('backbone.')}
    assert heads.keys() == {'head.norm.weight', 'head.norm.bias',
                            'head.fc.weight', 'head.fc.bias'}
    for ours, theirs in (('head.norm.bias', 'norm.bias'),
                         ('head.fc.weight', 'head.weight')):
        assert heads[ours] is given[theirs]


@pytest.mark.parametrize('file', FILES)
def test_golden_files_are_fully_converted(file):
    golden = read_golden(file)
    cfg = backbone_cfg(file, golden['config'])
    net = cfg.pop('type')(**cfg)
    converted, _ = convert_state_dict(golden['state_dict'])
    assert set(converted) == set(without_tables(net.state_dict()))


def test_deployed_names_of_unireplknet():
    net = make('unireplknet')
    net.switch_to_deploy()
    state = net.state_dict()
    # Upstream keeps the name of the branch that it merged into.
    large = {name.rpartition('.')[0] for name, value in state.items()
             if '.dwconv.' in name and value.shape[-1] >= 7
             and value.dim() == 4}
    assert large
    given = {}
    for name, value in state.items():
        module, _, last = name.rpartition('.')
        given[f'{module}.lk_origin.{last}' if module in large else name] = \
            value
    converted, report = convert_state_dict(given)
    assert set(converted) == set(state)
    assert all(converted[name] is value for name, value in state.items())
    assert report.recognised.startswith('UniRepLKNet, deployed')
    assert len(report.converted) == 2 * len(large)


@pytest.mark.parametrize('family', ['v2', 'v1'])
def test_merged_paths(family):
    """Upstream's merge_branches leaves one convolution, named otherwise."""
    net = make(family, num_paths=1)
    given = {name.replace('.LoRAs.0.', '.LoRA.'): value
             for name, value in published(family, net).items()}
    converted, report = convert_state_dict(given)
    assert set(converted) == set(without_tables(net.state_dict()))
    assert 'merged paths' in report.recognised


def test_weights_beside_the_backbone():
    net = make('v2')
    given = {f'backbone.{name}': value
             for name, value in published('v2', net).items()}
    given['neck.convs.0.weight'] = torch.ones(1)
    kept, report = convert_state_dict(given, prefix='backbone.')
    assert kept['neck.convs.0.weight'] is given['neck.convs.0.weight']
    assert 'neck.convs.0.weight' not in report.ignored
    left, report = convert_state_dict(given)
    assert 'neck.convs.0.weight' not in left
    assert report.ignored['neck.convs.0.weight'] == 'beside the backbone'


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_strangers_keep_their_names(prefix):
    given = {'backbone.layer1.0.conv1.weight': torch.ones(1),
             'neck.weight': torch.ones(1)}
    converted, report = convert_state_dict(given, prefix=prefix)
    assert report.recognised is None
    assert converted['backbone.layer1.0.conv1.weight'] is given[
        'backbone.layer1.0.conv1.weight']


def test_the_report_of_a_sparse_file_as_it_is_logged():
    net = make('v2')
    for i, stage in enumerate(net.stages):
        for block in stage:
            for conv in block.large_kernel.convs:
                # Every (i+2)th tap is gone, whole.
                conv.weight.data[::i + 2] = 0
                # A single zero weight leaves its tap.
                conv.weight.data[1, 0, 0, 0] = 0
    converted, report = convert_state_dict(published('v2', net))
    counts = [[len(conv.weight) for block in stage
               for conv in block.large_kernel.convs] for stage in net.stages]
    expected = [sum(n - -(-n // (i + 2)) for n in count) / sum(count)
                for i, count in enumerate(counts)]
    assert report.densities == pytest.approx(expected)
    assert stage_densities(converted) == report.densities
    lines = str(report).splitlines()
    assert len(lines) == 4
    assert 'ShiftWise v2, published names' in lines[0]
    assert f'{len(converted)} tensors loaded' in lines[1]
    assert f'{len(report.converted)} of them under converted' in lines[1]
    assert '4 ignored' in lines[1]
    assert 'of a classifier' in lines[2] and 'head.bias' in lines[2]
    assert lines[3].endswith(', '.join(f'{d:.4f}' for d in expected))


def test_dense_files_report_no_density():
    assert convert_state_dict(published('v2', make('v2')))[1].densities == ()


def test_density_of_long_kernels_counts_weights():
    net = make('slak')
    for block in net.stages[1]:
        for conv in (block.large_kernel.conv_h, block.large_kernel.conv_v):
            conv.weight.data[..., ::2, :] = 0
    densities = stage_densities(net.state_dict())
    assert densities[0] == densities[2] == densities[3] == 1
    # Of 49 rows 25 are gone; of 5 rows 3.
    assert densities[1] == pytest.approx((24 / 49 + 2 / 5) / 2)
