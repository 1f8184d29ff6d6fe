"""Which taps are kept, and what they cost, against sums by hand."""
import pytest
import torch
import torch.nn.functional as F
from published import make
from torch.utils.flop_counter import FlopCounterMode

from shiftwise_mm.analysis import count_model
from shiftwise_mm.analysis.sparsity import SparsityReport, find_tap_sets
from shiftwise_mm.analysis.sparsity.costs import multiply_adds, parameters
from shiftwise_mm.models import ShiftWiseConv2d, ShiftWiseNet
from shiftwise_mm.models.layers.decomposed_conv2d import DecomposedConv2d
from shiftwise_mm.sparsity import find_targets


def masked(layer, granularity='tap', seed=0, density=.5):
    """Its weights in a state dict, with random masks, as one of a stage."""
    generator = torch.Generator().manual_seed(seed)
    layer = torch.nn.ModuleDict(dict(large_kernel=layer))
    layer = torch.nn.ModuleDict({'stages': torch.nn.ModuleList([
        torch.nn.ModuleList([layer])])})
    for target in find_targets(layer, granularity):
        flags = torch.rand(target.flags().shape, generator=generator)
        target.set_flags(flags < density)
    return layer.state_dict()


def small_layer(**options):
    torch.manual_seed(0)
    return ShiftWiseConv2d(8, kernel_size=13, num_paths=2, num_reps=2,
                           ghost_ratio=.25, **options)


def without_masks(state):
    return {name: value for name, value in state.items()
            if 'mask' not in name.rpartition('.')[2]}


@pytest.mark.parametrize('by_mask', [True, False])
def test_masks_and_zeros_tell_the_same(by_mask):
    state = masked(small_layer())
    mask = state['stages.0.0.large_kernel.mask']
    found, = find_tap_sets(state if by_mask else without_masks(state))
    assert found.masked == by_mask and found.has_tables
    assert (found.channels, found.taps, found.large_kernel) == (6, 5, 13)
    assert torch.equal(found.kept, mask.view(2, 6, 5))
    assert torch.equal(found.union, mask.any(0).view(6, 5))
    assert (found.stage, found.label) == ('stage0', '0')


def test_a_tap_that_has_just_grown_is_kept_though_zero():
    state = masked(small_layer())
    state['stages.0.0.large_kernel.mask'].fill_(True)
    found, = find_tap_sets(state)
    assert found.kept.all()


@pytest.mark.parametrize('direction', 'hv')
@pytest.mark.parametrize('tables', [True, False])
def test_places_are_those_of_the_strip_that_is_computed(direction, tables):
    """A place is taken where the strip kernel is not zero."""
    layer = small_layer(norm_cfg=None)
    state = masked(layer, density=.2)
    if not tables:
        state = {name: value for name, value in state.items()
                 if not name.rpartition('.')[2].startswith('shift_')}
    found, = find_tap_sets(state, (13, ), 2)
    assert found.has_tables == tables
    net = ShiftWiseConv2d(8, kernel_size=13, num_paths=2, num_reps=2,
                          ghost_ratio=.25, norm_cfg=None)
    net.load_state_dict({name.rpartition('large_kernel.')[2]: value
                         for name, value in without_masks(state).items()},
                        strict=False)
    # An impulse shows the kernel, mirrored.
    x = torch.zeros(1, 6, 31, 31)
    x[:, :, 15, 15] = 1
    h, v, _ = net.operator(x)
    out = (h if direction == 'h' else v.transpose(2, 3))[0].flip(1, 2)
    centres = found.centres()
    assert centres == [-5, -2, 1, 4, 7]
    expected = torch.stack([
        out[:, :, 15 + c - 1:15 + c + 2].flatten(1).any(1)
        for c in centres], 1)
    assert expected.any() and not expected.all()
    assert torch.equal(found.placed(direction), expected)


def test_layers_without_tables_need_their_size():
    state = {name: value for name, value in masked(small_layer()).items()
             if 'shift_' not in name}
    with pytest.raises(ValueError, match=r'stages\.0\.0\.large_kernel.*size'):
        find_tap_sets(state, (51, ), 2)


def test_a_mask_of_another_shape_is_named():
    state = masked(small_layer())
    name = 'stages.0.0.large_kernel.mask'
    state[name] = state[name][:, :-1]
    with pytest.raises(ValueError, match=name.replace('.', r'\.')):
        find_tap_sets(state)


def test_parameters_by_hand():
    state = masked(small_layer())
    costs = parameters(find_tap_sets(state))
    union = int(state['stages.0.0.large_kernel.mask'].any(0).sum())
    assert (costs.slak, costs.shiftwise) == (2 * 13 * 3 * 6, 5 * 9 * 6)
    assert (costs.dense, costs.kept) == (30 * 9, union * 9)
    assert costs.predicted == pytest.approx(costs.kept)
    assert costs.saved == pytest.approx(1 - union / 30)


def test_the_paper_says_about_two():
    """Its ratios of parameters, for its kernels of 5x5."""
    ratios = []
    for size in (51, 49, 45, 13, 5):
        costs = parameters(find_tap_sets(masked(ShiftWiseConv2d(
            4, kernel_size=size, small_kernel=5))))
        ratios.append(round(costs.slak / costs.shiftwise, 2))
    assert ratios == [1.85, 1.96, 2., 1.73, 2.]


def test_multiply_adds_against_a_counter():
    """Dense and kept ones of the published composition, by torch's."""
    state = masked(small_layer())
    found, = find_tap_sets(state)
    costs = multiply_adds([found], (20, 14))
    assert costs.shiftwise == 5 * 9 * 20 * 14 * 6
    assert costs.slak == (2 * 13 + 3) * 3 * 20 * 14 * 6

    def counted(kept):
        channel = kept.nonzero()[:, 0]
        x = torch.empty(1, 6, 20, 14, device='meta')
        with FlopCounterMode(display=False) as flops:
            F.conv2d(x[:, channel], torch.empty(
                len(channel), 1, 3, 3, device='meta'), padding=2,
                groups=len(channel))
        return flops.get_total_flops() // 2

    assert costs.dense == counted(torch.ones(6, 5))
    assert costs.kept == counted(found.union)


def test_multiply_adds_of_a_network_against_mmengines_counter():
    """Of all its layers, a path."""
    net = ShiftWiseNet(dict(embed_dims=(8, 12), depths=(1, 2)),
                       kernel_sizes=(13, 7), num_paths=1, num_reps=2,
                       out_indices=(1, ))
    sets = find_tap_sets(net.state_dict())
    costs = [multiply_adds([s], (16, 16) if s.stage == 'stage0' else (8, 8))
             for s in sets]
    published = count_model(net, (64, 64), published=True).macs
    for layer in net.modules():
        if isinstance(layer, ShiftWiseConv2d):
            layer.operator = lambda x: (x, x, x)
    rest = count_model(net, (64, 64)).macs
    assert sum(c.dense for c in costs) == published - rest > 0
    assert all(c.kept == c.dense and c.kept_strips == c.strips
               for c in costs)


@pytest.mark.parametrize('form', ['large', 'shiftwise', 'shared_gated'])
def test_slak(form):
    layer = DecomposedConv2d(6, 13, small_kernel=3, form=form)
    granularity = 'weight' if form == 'large' else 'tap'
    state = masked(layer, granularity, density=.1)
    sets = find_tap_sets(state, (13, ))
    shared = form == 'shared_gated'
    assert [s.directions for s in sets] == (['hv'] if shared else ['h', 'v'])
    costs, macs = parameters(sets), multiply_adds(sets, (9, 7))
    prefix = 'stages.0.0.large_kernel.'
    for found in sets:
        name = '' if shared else f'_{found.directions}'
        weight = state[f'{prefix}conv{name}.weight']
        if form == 'large':
            # Tile by tile along the long side, by hand.
            long = weight[:, 0] if found.directions == 'h' else \
                weight[:, 0].transpose(1, 2)
            kept = torch.stack([long[:, :, 3 * i:3 * i + 3].flatten(1).any(1)
                                for i in range(5)], 1)
            assert found.kept_weights == int((weight != 0).sum())
        else:
            kept = weight.flatten(1).any(1).view(6, 5)
        assert kept.any() and not kept.all()
        assert torch.equal(found.kept[0], kept)
        # In their order, in each direction.
        for direction in found.directions:
            assert torch.equal(found.placed(direction), kept)
    assert costs.slak == 2 * 13 * 3 * 6
    small = 6 * 9 * 63
    if form == 'large':
        # Exactly its equations.
        assert (costs.dense, macs.dense) == (costs.slak, macs.slak)
        last = torch.stack([s.kept[0] for s in sets])[..., 4].sum()
        wide = sum(int(s.kept.sum()) for s in sets) - int(last)
        assert macs.kept - small == 63 * 3 * (3 * wide + int(last))
        assert macs.kept == macs.kept_strips
    else:
        total = sum(int(s.kept.sum()) for s in sets)
        assert costs.kept == 9 * total
        assert macs.kept - small == 9 * total * 11 * 9
        assert macs.kept_strips - small == 63 * 9 * total * (1 + shared)


def test_the_identity_output_is_saved_where_all_its_taps_are_pruned():
    layer = ShiftWiseConv2d(4, kernel_size=9, small_kernel=3, num_reps=1)
    state = masked(layer)
    mask = state['stages.0.0.large_kernel.mask']
    mask.fill_(False)
    taken = state['stages.0.0.large_kernel.shift_i'][0]
    mask.view(4, 3)[1, taken[1]] = True
    costs = multiply_adds(find_tap_sets(state), (5, 5))
    assert costs.kept_strips == 25 * 9 * 3  # h, v, i of one channel
    assert costs.strips == 25 * 9 * 4 * (3 + 3 + 1)


def test_other_networks_and_their_heads_are_no_small_kernels():
    state = {'bbox_head.convs.0.weight': torch.ones(8, 1, 3, 3),
             'neck.conv.weight': torch.ones(8, 8, 3, 3),
             'neck.conv.bias': torch.ones(8)}
    assert find_tap_sets(state) == []
    assert find_tap_sets(make('convnext').state_dict()) == []
    assert find_tap_sets(make('unireplknet').state_dict()) == []


def report_of(state):
    return SparsityReport('Test', find_tap_sets(state), dict(stage0=56))


def rows_after(text, title):
    """The table behind a heading: rows of cells."""
    lines = text.partition(f'### {title}')[2].splitlines()[2:]
    table = lines[:lines.index('')]
    return [[cell.strip() for cell in line.strip('|').split('|')]
            for line in table]


def test_the_text():
    state = masked(small_layer())
    mask = state['stages.0.0.large_kernel.mask'].view(2, 6, 5)
    text = report_of(state).markdown()
    assert 'masks in the file' in text and 'dense' not in text.split('##')[0]
    head, _, row, total = rows_after(text, 'stage0')
    assert head == ['block', *map(str, range(6)), 'density']
    counts = mask.any(0).sum(1).bincount(minlength=6).tolist()
    density = f'{mask.float().mean().item():.4f}'
    assert row == ['0', *map(str, counts), density]
    assert total == ['all', *map(str, counts), density]
    head, _, row, total = rows_after(text, 'By stage')
    shown = dict(zip(head, row, strict=True))
    assert shown['density'] == density
    assert shown['union'] == f'{mask.any(0).float().mean().item():.4f}'
    assert '.png' not in text


def test_a_dense_network_has_density_one():
    text = report_of(small_layer_state()).markdown()
    assert 'The network is dense' in text
    for row in rows_after(text, 'By stage')[2:]:
        assert row[-4:] == ['1.0000'] * 4
    for row in rows_after(text, 'Parameters')[2:]:
        assert row[-1] == '0.0%'


def small_layer_state():
    return {f'stages.0.0.large_kernel.{name}': value
            for name, value in small_layer().state_dict().items()}


def test_single_weights_are_said_to_be_masked():
    report = report_of(masked(small_layer(), 'weight', density=.1))
    text = report.markdown()
    assert 'Single weights are masked' in text
    head, _, row, _ = rows_after(text, 'By stage')
    mask = masked(small_layer(), 'weight', density=.1)[
        'stages.0.0.large_kernel.mask']
    assert dict(zip(head, row, strict=True))['weights'] == \
        f'{mask.any(0).float().mean().item():.4f}'


def test_nothing_half_written_stays(tmp_path, monkeypatch):
    report = report_of(masked(small_layer()))
    monkeypatch.setattr('matplotlib.figure.Figure.savefig', fail)
    with pytest.raises(OSError, match='full'):
        report.write(tmp_path / 'a/b')
    assert not list((tmp_path / 'a/b').iterdir())


def fail(figure, path, **options):
    path.write_bytes(b'half')
    raise OSError('the disk is full')
