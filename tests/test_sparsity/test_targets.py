"""Which layers of a model are masked."""
import pytest
import torch
from published import MINI

from shiftwise_mm.models import (
    ConvNeXt,
    ShiftWiseConv2d,
    ShiftWiseNet,
    SLaK,
)
from shiftwise_mm.sparsity import check_masks, find_targets


def test_targets_of_a_backbone():
    net = ShiftWiseNet(MINI)
    targets = find_targets(net, 'tap')
    assert [t.name for t in targets] == [
        f'stages.{i}.{j}.large_kernel.mask'
        for i, depth in enumerate(MINI['depths']) for j in range(depth)]
    assert [t.stage for t in targets] == [
        'stage0', 'stage1', 'stage1', 'stage2', 'stage3']
    assert [t.units for t in targets] == [
        17 * 6, 17 * 8, 17 * 8, 16 * 12, 5 * 14]
    for target in targets:
        assert len(target.weights) == 2 and target.mask.all()
        assert target.mask is net.state_dict(keep_vars=True)[target.name]


def test_targets_of_slak():
    targets = find_targets(SLaK(MINI, form='shiftwise'), 'tap')
    assert [t.mask_name for t in targets] == ['mask_h', 'mask_v'] * 5
    with pytest.raises(ValueError,
                       match=r'stages\.0\.0\.large_kernel: granularity'):
        find_targets(SLaK(MINI), 'tap')
    assert len(find_targets(SLaK(MINI), 'weight')) == 10


def test_frozen_and_deployed_layers_are_left_out():
    net = ShiftWiseNet(MINI, frozen_stages=2)
    assert {t.stage for t in find_targets(net, 'tap')} == {'stage2', 'stage3'}
    assert not any('mask' in name for name in net.stages[0].state_dict())
    net = ShiftWiseNet(MINI)
    net.switch_to_deploy()
    assert find_targets(net, 'tap') == []
    assert find_targets(ConvNeXt(MINI), 'tap') == []


def test_layers_in_other_networks():
    net = torch.nn.ModuleDict(dict(
        layer2=torch.nn.Sequential(ShiftWiseConv2d(4, kernel_size=9)),
        neck=ShiftWiseConv2d(4, kernel_size=9)))
    assert [(t.name, t.stage) for t in find_targets(net, 'tap')] == [
        ('layer2.0.mask', 'layer2'), ('neck.mask', 'other')]
    layer = ShiftWiseConv2d(4, kernel_size=9)
    assert [t.name for t in find_targets(layer, 'tap')] == ['mask']


@pytest.mark.parametrize('granularity', ['tap', 'weight'])
def test_flags_and_sums(granularity):
    torch.manual_seed(0)
    layer = ShiftWiseConv2d(4, kernel_size=9, num_paths=2)
    target, = find_targets(layer, granularity)
    sums = target.unit_sums(target.weights)
    size = 1 if granularity == 'tap' else 9
    assert sums.shape == (2, 12 * size) and target.units == 12 * size
    for path, conv in enumerate(layer.convs):
        for tap in range(12):
            values = conv.weight[tap].abs().flatten()
            expected = values.sum()[None] if size == 1 else values
            assert torch.allclose(
                sums[path, tap * size:(tap + 1) * size], expected)
    flags = torch.rand(2, 12 * size) < .5
    target.set_flags(flags)
    assert torch.equal(target.flags(), flags)
    assert torch.equal(target.unit_sums(target.weights),
                       torch.where(flags, sums, 0.))
    target.set_flags(flags[0])  # of all paths
    assert torch.equal(target.flags(), flags[:1].expand(2, -1))


def test_masks_of_a_checkpoint():
    net = ShiftWiseNet(MINI)
    targets = find_targets(net, 'tap')
    state = net.state_dict()
    assert check_masks(net, targets, state) == []
    first = targets[0].name
    assert check_masks(net, targets, {
        k: v for k, v in state.items() if k != first}) == [first]
    with pytest.raises(ValueError, match=f'{first} .*does not fit'):
        check_masks(net, targets, {
            **state, first: torch.ones(2, 3, dtype=torch.bool)})
    deeper = ShiftWiseNet(dict(embed_dims=MINI['embed_dims'],
                               depths=(2, 2, 1, 1)))
    find_targets(deeper, 'tap')
    with pytest.raises(ValueError, match=r'stages\.0\.1\.large_kernel\.mask '
                       'of the checkpoint fits no layer'):
        check_masks(net, targets, deeper.state_dict())
    # Masks of others, and those of layers that are frozen.
    assert check_masks(net, targets[3:], state) == []
    assert check_masks(net, targets, {
        **state, 'head.attention.mask': torch.ones(3) > 0}) == []
