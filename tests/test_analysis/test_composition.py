"""What published_composition lets a counter see, and what it leaves."""
import copy

import pytest
import torch
from mmengine.analysis import FlopAnalyzer

from shiftwise_mm.analysis import published_composition, shift_additions
from shiftwise_mm.models import ShiftWiseConv2d
from shiftwise_mm.ops import ShiftSpec, shift_add

FORMS = ['auto', 'strip', 'shift']


def make(**options):
    torch.manual_seed(0)
    return ShiftWiseConv2d(8, kernel_size=13, bias=False, **{
        **dict(num_paths=3, num_reps=2, ghost_ratio=.3), **options}).eval()


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('small_kernel', [3, 5])
def test_each_path_is_a_convolution_of_its_own(form, small_kernel):
    """P times n_rep -> n_rep*k over (H+N-1) x (W+N-1), by hand."""
    layer = make(form=form, small_kernel=small_kernel)
    x = torch.rand(2, 8, 11, 7)
    with published_composition(layer) as additions, torch.no_grad():
        counter = FlopAnalyzer(layer, (x, ))
        counts = counter.by_operator()
        assert layer(x).shape == x.shape
        calls = len(additions)
    n_rep, taps, n = 4, -(-13 // small_kernel), small_kernel
    plane = (11 + n - 1) * (7 + n - 1)
    one_path = 2 * n_rep * taps * n * n * plane
    assert counts == {'conv': 3 * one_path,
                      'batch_norm': 3 * 2 * 2 * n_rep * 11 * 7}
    assert [counter.total(f'convs.{p}') for p in range(3)] == [one_path] * 3
    assert calls == 2  # of the counter, and the one here
    assert additions == [2 * n_rep * 11 * 7 * (2 * (2 * taps - 1) + 1)] * 2


def test_an_addition_fewer_than_the_terms_of_the_operator():
    """Ones through the operator count its terms, far from the borders."""
    spec = ShiftSpec.from_seed(channels=2, large_kernel=13, small_kernel=3,
                               num_reps=3)
    outs = shift_add(torch.ones(1, 2 * 5, 41, 41), spec)
    terms = [out[0, 0, 20, 20].item() for out in outs]
    assert terms == [15, 15, 3]
    assert shift_additions(spec, (1, 1, 1, 1)) == sum(terms) - 3
    assert shift_additions(spec, (2, 3, 5, 7)) == 210 * (sum(terms) - 3)
    tiled = ShiftSpec.tiled(channels=2, large_kernel=13, small_kernel=3)
    assert shift_additions(tiled, (1, 1, 1, 1)) == 2 * (5 - 1)


@pytest.mark.parametrize('form', FORMS)
def test_the_layer_is_as_it_was_afterwards(form):
    layer = make(form=form)
    x = torch.rand(1, 8, 9, 9)
    before = layer(x)
    attributes, state = set(vars(layer)), copy.deepcopy(layer.state_dict())
    with published_composition(layer):
        assert not torch.equal(layer(x), before)
    assert torch.equal(layer(x), before)
    with pytest.raises(RuntimeError, match='mine'):
        with published_composition(layer):
            raise RuntimeError('mine')
    assert set(vars(layer)) == attributes
    assert torch.equal(layer(x), before)
    for name, value in layer.state_dict().items():
        assert torch.equal(value, state[name])


def test_a_deployed_layer_is_refused_and_nothing_touched():
    model = torch.nn.ModuleList([make(), make(deploy=True)])
    with pytest.raises(ValueError, match='deploy=False'):
        with published_composition(model):
            pass
    assert 'operator' not in vars(model[0])
