"""Shift tables: the published ones, and what a spec refuses."""
import copy
import pickle
import random

import numpy as np
import pytest
import torch
from helpers import shared_path

from shiftwise_mm.models.layers.ghost import split_channels
from shiftwise_mm.ops import ShiftSpec

SIZES = dict(channels=6, large_kernel=13, small_kernel=3)


@pytest.mark.parametrize('name', ['sw_v2', 'sw_v2_n5_path1_rep1', 'sw_v1',
                                  'sw_v1_ghost0_path1_rep1'])
def test_tables_are_the_published_ones(name):
    golden = torch.load(shared_path('golden', f'{name}.pth'))
    config = golden['config']
    *large_kernels, small_kernel = config['kernel_size']
    assert golden['tables']
    for block, table in golden['tables'].items():
        stage = int(block.split('.')[1])
        rep, ghost = split_channels(config['dims'][stage],
                                    config['ghost_ratio'],
                                    'slak' if 'v1' in name else 'unirep')
        assert torch.equal(rep, table['rep'].long())
        assert torch.equal(ghost, table['ghost'].long())
        spec = ShiftSpec.from_seed(
            channels=len(rep), large_kernel=large_kernels[stage],
            small_kernel=small_kernel, num_reps=config['N_rep'])
        reps, channels, taps = spec.perm_h.shape
        # Published rows are taps of channels; columns the two directions of
        # each repetition.
        flat = {d: spec.tap_offsets(d).reshape(reps, -1) for d in 'hv'}
        published = table['pad_hv'].long()
        ours = torch.stack([flat[d][r] for r in range(reps) for d in 'hv'], 1)
        grouped = torch.stack([flat[d][r] for d in 'hv' for r in range(reps)],
                              1)
        assert torch.equal(published, ours) or torch.equal(published, grouped)
        first = torch.arange(channels) * taps
        assert torch.equal(table['idx_identit'].long(),
                           (spec.identity_tap + first).t())


def test_making_a_spec_leaves_the_global_generators_alone():
    torch.manual_seed(7)
    np.random.seed(7)
    random.seed(7)
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(),
              random.getstate())
    one = ShiftSpec.from_seed(**SIZES, num_reps=2)
    split_channels(40, .23)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()
    torch.manual_seed(8)
    assert one == ShiftSpec.from_seed(**SIZES, num_reps=2)


def test_equal_tables_are_drawn_once(monkeypatch):
    """A network has the same in many blocks; copies, so none can harm."""
    arguments = dict(channels=3, large_kernel=15, small_kernel=3, seed=77)
    first = ShiftSpec.from_seed(**arguments)
    kept = first.perm_h.clone()

    def drawn(*args, **kwargs):
        raise AssertionError('drawn again')

    monkeypatch.setattr(torch, 'randperm', drawn)
    first.perm_h.zero_()
    assert torch.equal(ShiftSpec.from_seed(**arguments).perm_h, kept)
    with pytest.raises(AssertionError, match='drawn again'):
        ShiftSpec.from_seed(**{**arguments, 'seed': 78})


def test_specs_compare_by_value():
    one, other = (ShiftSpec.from_seed(**SIZES) for _ in range(2))
    assert one == other and hash(one) == hash(other)
    assert one != ShiftSpec.from_seed(**SIZES, seed=1)
    assert one != ShiftSpec.tiled(**SIZES)
    assert one != 'spec'
    assert pickle.loads(pickle.dumps(one)) == one
    assert copy.deepcopy(one) == one
    with pytest.raises(AttributeError):
        one.channels = 3


def test_tiled_is_the_identity_permutation():
    spec = ShiftSpec.tiled(channels=2, large_kernel=51, small_kernel=5)
    assert spec.outputs == ('h', 'v')
    assert spec.num_reps == 1 and spec.num_taps == 11
    expected = [51 // 2 - 5 * i - 4 for i in range(11)]
    assert spec.tap_offsets('h').tolist() == [[expected, expected]]
    assert torch.equal(spec.tap_offsets('h'), spec.tap_offsets('v'))


@pytest.mark.parametrize('make', [ShiftSpec.from_seed, ShiftSpec.tiled])
@pytest.mark.parametrize('change, error, words', [
    (dict(small_kernel=4), ValueError, 'small_kernel.*odd.*4'),
    (dict(small_kernel=15), ValueError, 'large_kernel.*15.*13'),
    (dict(channels=0), ValueError, 'channels.*1.*0'),
    (dict(large_kernel=0), ValueError, 'large_kernel.*1.*0'),
    (dict(channels=2.), TypeError, r'channels.*integer.*2\.0'),
    (dict(small_kernel='3'), TypeError, "small_kernel.*integer.*'3'"),
    (dict(large_kernel=True), TypeError, 'large_kernel.*integer.*True'),
])
def test_bad_sizes_are_named(make, change, error, words):
    with pytest.raises(error, match=words):
        make(**{**SIZES, **change})


@pytest.mark.parametrize('change, error, words', [
    (dict(num_reps=0), ValueError, 'num_reps.*1.*0'),
    (dict(seed='x'), TypeError, "seed.*integer.*'x'"),
])
def test_bad_seed_arguments_are_named(change, error, words):
    with pytest.raises(error, match=words):
        ShiftSpec.from_seed(**SIZES, **change)


@pytest.mark.parametrize('change, error, words', [
    (dict(perm_h=torch.zeros(1, 6, 5, dtype=torch.int64)), ValueError,
     'perm_h.*permutation'),
    (dict(perm_v=torch.rand(1, 6, 5)), TypeError, 'perm_v.*integer.*float'),
    (dict(perm_h=torch.arange(5).expand(1, 5, 5)), ValueError,
     'perm_h.*shape'),
    (dict(perm_h=torch.arange(5).expand(2, 6, 5)), ValueError,
     'perm_h and perm_v'),
    (dict(identity_tap=torch.full((1, 6), 5)), ValueError,
     r'identity_tap.*0\.\.4'),
    (dict(identity_tap=torch.zeros(2, 6, dtype=torch.int64)), ValueError,
     'identity_tap.*1 rows'),
])
def test_bad_tables_are_named(change, error, words):
    perm = torch.arange(5).expand(1, 6, 5)
    with pytest.raises(error, match=words):
        ShiftSpec(**{**SIZES, 'perm_h': perm, 'perm_v': perm, **change})


def test_the_caller_cannot_change_a_spec_afterwards():
    perm = torch.arange(5).repeat(1, 6, 1)
    spec = ShiftSpec(**SIZES, perm_h=perm, perm_v=perm)
    perm.zero_()
    assert spec == ShiftSpec.tiled(**SIZES)
