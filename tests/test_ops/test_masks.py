"""Masks over small kernels: zeros in every form, and what they save."""
import pytest
import torch
from helpers import assert_near, record_forms
from shiftwise_mm.kernels import fused_launch
from taps import lists_of
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from shiftwise_mm.ops import (
    ShiftSpec,
    autotune,
    forms,
    set_autotune,
    shiftwise_conv,
    tap_lists,
)
from shiftwise_mm.ops.fused import fused_worth

# Batch, channels, height, width, M, N, R.
CASES = [(2, 4, 13, 17, 23, 5, 2), (1, 3, 9, 21, 13, 3, 1),
         (3, 2, 33, 7, 10, 3, 4), (1, 1, 5, 5, 5, 5, 1)]
FORMS = ('fused', 'strip', 'shift')


def random(*shape, seed):
    return torch.randn(shape,
                       generator=torch.Generator().manual_seed(seed))


def make(case, density=.4):
    """Spec, exact inputs, and a mask with a channel without any tap."""
    b, c, h, w, m, n, r = case
    spec = ShiftSpec.from_seed(channels=c, large_kernel=m, small_kernel=n,
                               num_reps=r)
    k = spec.num_taps
    mask = torch.rand(c, k, generator=torch.Generator().manual_seed(2)
                      ) < density
    mask[0, 0] = True
    mask[1:2] = False
    return (spec, random(b, c, h, w, seed=0).double(),
            random(c * k, 1, n, n, seed=1).double(), mask.flatten())


def results(x, weight, *args, **kwargs):
    """Outputs and gradients."""
    x, weight = (t.detach().requires_grad_() for t in (x, weight))
    out = shiftwise_conv(x, weight, *args, **kwargs)
    seeds = [random(*o.shape, seed=3 + i).to(o) for i, o in enumerate(out)]
    return (*out, *torch.autograd.grad(out, (x, weight), seeds))


@pytest.mark.parametrize('outputs', [('h', 'v', 'i'), ('v', )], ids=''.join)
@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('case', CASES, ids=str)
def test_masked_kernels_count_as_zero(case, form, outputs, poison):
    spec, x, weight, mask = make(case)
    kept = mask.view(-1, 1, 1, 1)
    dtype = torch.float32 if form == 'fused' else torch.float64
    *expected, grad = results(x, weight * kept, spec, form='shift',
                              outputs=outputs)
    weight[~mask] = float('nan')  # which may show nowhere
    *ours, own = results(x.to(dtype), weight.to(dtype), spec, form=form,
                         outputs=outputs, mask=mask)
    for a, b in zip(ours, expected, strict=True):
        assert_near(a, b)
    assert_near(own, grad * kept)
    assert (own[~mask] == 0).all()


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_and_channels_last(form, dtype):
    spec, x, weight, mask = make(CASES[0])
    given = [t.to(dtype) for t in (x, weight)]
    expected = results(*(t.double() * m for t, m in zip(
        given, (1, mask.view(-1, 1, 1, 1)), strict=True)), spec, form='shift')
    given[0] = given[0].contiguous(memory_format=torch.channels_last)
    for a, b in zip(results(*given, spec, form=form, mask=mask)[:4],
                    expected[:4], strict=True):
        assert a.dtype == dtype
        assert_near(a, b)


@pytest.mark.parametrize('form', ['auto', *FORMS])
def test_without_any_tap_nothing_runs(form, monkeypatch):
    for name in ('forward', 'backward'):
        monkeypatch.setattr(fused_launch, name, None)
    monkeypatch.setattr(forms, 'strip_conv', None)
    monkeypatch.setattr(forms.F, 'conv2d', None)
    spec, x, weight, mask = make(CASES[0])
    x, weight = x.float(), weight.float() * float('inf')
    for result in results(x, weight, spec, form=form,
                          mask=torch.zeros_like(mask)):
        assert not result.any() and result.dtype == torch.float32
    with torch.no_grad():
        out = shiftwise_conv(x, weight, spec, mask=torch.zeros_like(mask))
    assert len(out) == 3 and not any(o.any() for o in out)


def test_without_any_tap_the_form_must_be_one():
    spec, x, weight, mask = make(CASES[0])
    with pytest.raises(ValueError, match='float64'):
        shiftwise_conv(x, weight, spec, form='fused',
                       mask=torch.zeros_like(mask))
    # Compilers do not see the values: the operator itself skips its launch.
    taps = tap_lists.all_taps(spec, 'vih', x.device)
    out = torch.ops.shiftwise_mm.fused_conv(
        x.float(), weight.float(), taps, 'vih', torch.zeros_like(mask), 'a')
    assert not any(o.any() for o in out)


@pytest.mark.parametrize('outputs', ['vih', 'h', 'vi'])
@pytest.mark.parametrize('case', CASES[:3], ids=str)
def test_the_lists_are_those_made_by_hand(case, outputs):
    spec, _, _, mask = make(case)
    taps = tap_lists.all_taps(spec, outputs, torch.device('cpu'))
    ours = tap_lists.without_masked(fused_launch.Taps(*taps), mask)
    hand = lists_of(spec, mask.view(spec.channels, -1), outputs)
    for name in ('offset', 'flipped', 'offset_flipped', 'start'):
        assert torch.equal(getattr(ours, name), getattr(hand, name)), name
        assert getattr(ours, name).dtype == torch.int32
    for name in ('source', 'used'):
        rows = [[sorted(row[row >= 0].tolist())
                 for row in getattr(lists, name)] for lists in (ours, hand)]
        assert rows[0] == rows[1], name


def test_lists_are_made_once_for_a_mask(monkeypatch):
    made = []
    without = tap_lists.without_masked
    monkeypatch.setattr(tap_lists, '_lists', type(tap_lists._lists)())
    monkeypatch.setattr(tap_lists, '_KEPT', 2)
    monkeypatch.setattr(tap_lists, 'without_masked',
                        lambda *args: made.append(1) or without(*args))
    spec, x, weight, mask = make(CASES[0])
    x, weight = x.float(), weight.float()

    def run(mask, outputs=('h', )):
        count = len(made)
        ours = results(x, weight, spec, form='fused', mask=mask,
                       outputs=outputs)
        for a, b in zip(ours, results(x, weight, spec, form='strip',
                                      mask=mask, outputs=outputs),
                        strict=True):
            assert_near(a, b)
        return len(made) - count

    assert run(mask) == 1
    assert run(mask) == 0
    assert run(mask.clone()) == 0
    mask[0] = ~mask[0]  # in place
    assert run(mask) == 1
    mask.data[1] = ~mask[1]  # which no version shows
    assert run(mask) == 1
    assert run(mask, ('v', )) == 1
    assert len(tap_lists._lists) == 2


def test_lists_of_inference_can_be_trained_through():
    spec, x, weight, mask = make(CASES[1])
    x, weight = x.float(), weight.float()
    with torch.inference_mode():
        shiftwise_conv(x, weight, spec, form='fused', mask=mask)
    results(x, weight, spec, form='fused', mask=mask)


@pytest.mark.parametrize('form', FORMS)
def test_checkpointing(form):
    spec, x, weight, mask = make(CASES[1])
    x, weight = x.float(), weight.float()
    expected = results(x, weight, spec, form=form, mask=mask)
    leaves = [t.requires_grad_() for t in (x, weight)]
    for reentrant in (False, True):
        out = checkpoint(lambda *a: shiftwise_conv(
            *a, spec, form=form, mask=mask), *leaves,
            use_reentrant=reentrant)
        for leaf in leaves:
            leaf.grad = None
        torch.autograd.backward(out, [
            random(*o.shape, seed=3 + i) for i, o in enumerate(out)])
        for leaf, grad in zip(leaves, expected[3:], strict=True):
            assert_near(leaf.grad, grad)


@pytest.mark.parametrize('form', [*FORMS, 'auto'])
def test_a_compiler_sees_one_graph_for_all_masks(form):
    spec, x, weight, mask = make(CASES[0])
    x, weight = (t.float().requires_grad_() for t in (x, weight))
    compiled = torch.compile(
        lambda *a: shiftwise_conv(*a[:2], spec, form=form, mask=a[2]),
        backend='aot_eager', fullgraph=True)
    for now in (mask, ~mask, torch.zeros_like(mask)):
        ours = compiled(x, weight, now)
        grads = torch.autograd.grad(ours, (x, weight), ours)
        out = shiftwise_conv(x, weight, spec, form=form, mask=now)
        for a, b in zip((*ours, *grads), (*out, *torch.autograd.grad(
                out, (x, weight), out)), strict=True):
            assert torch.equal(a, b)


def test_torch_finds_no_fault():
    spec, x, weight, mask = make(CASES[1])
    taps = tap_lists.all_taps(spec, 'vih', x.device)
    torch.library.opcheck(
        torch.ops.shiftwise_mm.fused_conv.default,
        (*(t.float().requires_grad_() for t in (x, weight)), taps, 'vih',
         mask, 'some'))


@pytest.mark.parametrize('form', [*FORMS, 'auto'])
def test_fake_tensors(form):
    spec, x, weight, mask = make(CASES[1])
    x, weight = x.float(), weight.float()
    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(t) for t in (x, weight, mask)]
        out = shiftwise_conv(*fakes[:2], spec, form=form, mask=fakes[2])
        assert [o.shape for o in out] == [x.shape] * 3


def test_traces_hold_strips_and_the_mask():
    spec, x, weight, mask = make(CASES[0])
    graph = torch.jit.trace(
        lambda *a: shiftwise_conv(*a[:2], spec, mask=a[2]),
        (x, weight, mask), check_trace=False)
    for now in (mask, ~mask):
        for a, b in zip(graph(x, weight, now), shiftwise_conv(
                x, weight, spec, mask=now), strict=True):
            assert_near(a, b)


def test_the_counter_of_torch_counts_what_is_left():
    spec, x, weight, mask = make(CASES[1])
    with FlopCounterMode(display=False) as counter:
        results(x.float(), weight.float(), spec, form='fused', mask=mask)
    entries = len(lists_of(spec, mask.view(spec.channels, -1), 'vih').offset)
    counts = {str(op): count
              for op, count in counter.get_flop_counts()['Global'].items()}
    once = 2 * x.numel() // spec.channels * entries * 9
    assert counts['shiftwise_mm.fused_conv'] == once
    assert counts['shiftwise_mm.fused_conv_backward'] == 2 * once


@pytest.mark.parametrize('mask, error, words', [
    (torch.ones(15), TypeError, 'mask must be a bool tensor.*float32'),
    ([True] * 15, TypeError, 'mask must be a bool tensor.*list'),
    (torch.ones(14, dtype=torch.bool), ValueError, r'mask.*\(15,\).*\(14,\)'),
    (torch.ones(3, 5, dtype=torch.bool), ValueError, r'mask.*\(3, 5\)'),
])
def test_bad_masks(mask, error, words):
    spec, x, weight, _ = make(CASES[1])
    with pytest.raises(error, match=words):
        shiftwise_conv(x, weight, spec, mask=mask)


def test_auto_takes_the_fused_form_at_lower_densities():
    for shape, training, highest in (
            ((4, 64, 24, 24), False, .6), ((4, 300, 18, 18), False, .15),
            ((4, 300, 13, 13), True, .9), ((4, 998, 7, 7), True, .4)):
        x = torch.empty(1).expand(shape)
        assert fused_worth(x, training, highest)
        assert not fused_worth(x, training, 1.)
    assert not fused_worth(torch.empty(1).expand(1, 8, 28, 28), True, .1)
    assert not fused_worth(torch.empty(1).expand(4, 998, 7, 7), True, .9)


def test_auto_follows_the_density(monkeypatch):
    taken = record_forms(monkeypatch)
    spec = ShiftSpec.from_seed(channels=64, large_kernel=13, small_kernel=3)
    x, weight = torch.zeros(4, 64, 24, 24), torch.zeros(320, 1, 3, 3)
    shiftwise_conv(x, weight, spec)
    for kept in (320, 100, 1, 0):
        shiftwise_conv(x, weight, spec, mask=torch.arange(320) < kept)
    # The last is computed by none.
    assert taken == ['strip', 'strip', 'fused', 'fused']


def test_measured_choices_are_of_a_density(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(autotune, '_memory', {})
    monkeypatch.setattr(autotune, '_ROUNDS', (2, 2))
    spec, x, weight, mask = make(CASES[1])
    x, weight = x.float(), weight.float()
    set_autotune(True)
    try:
        for kept in (None, 0, 1, 2, 15):
            given = None if kept is None else torch.arange(15) < kept
            for a, b in zip(
                    shiftwise_conv(x, weight, spec, mask=given),
                    shiftwise_conv(x, weight, spec, form='shift', mask=given),
                    strict=True):
                assert_near(a, b)
    finally:
        set_autotune(False)
    cases, = autotune._memory.values()
    ends = sorted(case.rpartition('outputs hiv')[2] for case in cases)
    assert ends == ['', ', density 1/8', ', density 2/8', ', density 8/8']
