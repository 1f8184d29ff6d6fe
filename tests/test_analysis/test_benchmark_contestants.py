"""Every contestant of the benchmark solves the same problem."""
import pytest
import torch
from helpers import assert_near

from shiftwise_mm.analysis.benchmark import (
    Disagreement,
    contestants,
    strategies,
)
from shiftwise_mm.analysis.benchmark.case import Case
from shiftwise_mm.ops import ShiftSpec, available_forms, shiftwise_conv

CPU = torch.device('cpu')
# Shape, M, N, repetitions: odd planes, kernels beyond them, one repetition.
SHAPES = {
    'odd': ((2, 3, 11, 9), 13, 3, 2),
    'wide': ((1, 2, 5, 16), 21, 5, 1),
    'even kernel': ((2, 2, 7, 7), 6, 3, 3),
    'kernel beyond the plane': ((1, 2, 5, 4), 51, 5, 2),
    'no small kernel': ((1, 3, 6, 5), 5, 1, 1),
}
NAMES = ['ours, auto', *strategies.STRATEGIES, *contestants.DENSE,
         contestants.PUBLISHED]


def make_case(key, outputs=(), density=1.):
    shape, large, small, reps = SHAPES[key]
    spec = ShiftSpec.from_seed(channels=shape[1], large_kernel=large,
                               small_kernel=small, num_reps=reps)
    return Case(spec, shape, CPU, outputs, density)


@pytest.fixture(scope='module', params=SHAPES)
def case(request):
    return make_case(request.param)


def test_the_answer_is_the_operator(case):
    x, weight = (t.detach().double().requires_grad_()
                 for t in (case.x, case.weight))
    outs = shiftwise_conv(x, weight, case.spec, form='shift')
    grads = torch.autograd.grad(outs, (x, weight),
                                [g.double() for g in case.grads])
    expected, *expected_grads = case.answer
    for out, right in zip((*outs, *grads), (*expected, *expected_grads),
                          strict=True):
        assert_near(right, out.detach().float(), 1e-6)


def test_all_agree(case):
    found = contestants.conv_contestants(case)
    names = [c.name for c in found]
    forms = [name for name, why in available_forms(case.x, case.spec).items()
             if why is None]
    assert set(names) == {*NAMES, *(f'ours, {form}' for form in forms),
                          contestants.COMPILED, contestants.GROUPED}
    for contestant in found:
        if contestant.name not in (contestants.COMPILED,
                                   contestants.GROUPED):
            contestants.check(contestants.Runner(contestant, case.grads),
                              case)


@pytest.mark.parametrize('outputs', [('h', ), ('v', 'i')])
def test_all_agree_on_some_outputs_of_many_images(outputs, monkeypatch):
    case = make_case('odd', outputs)
    for contestant in contestants.conv_contestants(case):
        if contestant.kind in ('ours', 'torch', 'published'):
            contestants.check(contestants.Runner(contestant, case.grads),
                              case)


def test_masked_taps_have_no_weight_and_count_for_nothing():
    case = make_case('odd', density=.4)
    assert case.kept.sum() == round(.4 * 3 * 5)
    assert not case.weight[~case.kept].any()
    assert case.weight[case.kept].all()
    for contestant in contestants.conv_contestants(case):
        if contestant.kind in ('ours', 'dense') \
                and contestant.name != contestants.COMPILED:
            contestants.check(contestants.Runner(contestant, case.grads),
                              case)


@pytest.mark.parametrize('outputs', [('h', ), ('h', 'v', 'i')])
def test_shift_add_alone(case, outputs):
    case = Case(case.spec, case.shape, CPU, outputs)
    found = contestants.shift_contestants(case)
    assert {c.name for c in found} >= {
        'ours, taichi', contestants.PUBLISHED, *strategies.STRATEGIES}
    for contestant in found:
        contestants.check(contestants.Runner(contestant, case.grads), case)


@pytest.mark.slow
def test_the_compiled_form_agrees():
    case = make_case('odd')
    compiled, = contestants.select(contestants.conv_contestants(case),
                                   [contestants.COMPILED])
    contestants.check(contestants.Runner(compiled, case.grads), case)


def broken(name):
    """A contestant that is right but for one thing."""
    case = make_case('odd')
    whole, = contestants.select(contestants.conv_contestants(case),
                                ['ours, auto'])
    leaves, right = whole.build()

    class WrongGradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            grad = grad.clone()
            grad.view(-1)[7] *= 1.01
            return grad

    wrong = WrongGradient.apply
    functions = {
        'output v': lambda x, w: tuple(
            out * (1 + 1e-3 * (i == 1)) for i, out in
            enumerate(right(x, w))),
        'gradient of x': lambda x, w: right(wrong(x), w),
        'gradient of the small kernels': lambda x, w: right(x, wrong(w)),
        'has shape': lambda x, w: tuple(o[..., 1:] for o in right(x, w)),
        '2 outputs': lambda x, w: right(x, w)[:2],
        'nan': lambda x, w: tuple(o / 0 * 0 for o in right(x, w)),
    }
    contestant = contestants.Contestant('the broken one', 'ours',
                                        lambda: (leaves, functions[name]))
    return contestant, case


@pytest.mark.parametrize('what', [
    'output v', 'gradient of x', 'gradient of the small kernels',
    'has shape', '2 outputs', 'nan'])
def test_a_wrong_contestant_is_named(what):
    contestant, case = broken(what)
    grads = case.grads
    if what == 'has shape':
        grads = tuple(g[..., 1:] for g in grads)
    if what == '2 outputs':
        grads = grads[:2]
    with pytest.raises(Disagreement, match=f'the broken one: .*{what}'
                       if what != 'nan' else 'the broken one: output h'):
        contestants.check(contestants.Runner(contestant, grads), case)


def test_rows_are_chosen_by_parts_of_their_names():
    found = contestants.conv_contestants(make_case('odd'))
    names = [c.name for c in contestants.select(found, ['ROLL', 'auto'])]
    assert names == ['ours, auto', 'torch.roll']
    whole = contestants.select(found, ['slicing'])  # of two that hold it
    assert [c.name for c in whole] == ['slicing']
    with pytest.raises(ValueError, match="'nobody'.*torch.roll"):
        contestants.select(found, ['auto', 'nobody'])


def test_density_is_a_share():
    with pytest.raises(ValueError, match='density.*1.5'):
        make_case('odd', density=1.5)
