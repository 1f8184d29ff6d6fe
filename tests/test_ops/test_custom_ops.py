"""What torch knows of the operators: shapes, gradients, compilation."""
import threading
from functools import partial

import pytest
import torch
from helpers import assert_near, run_python
from processes import run_forked
from shiftwise_mm.kernels import launcher, shift_add_rows
from taps import lists_of
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from shiftwise_mm.ops import ShiftSpec, shift_add, shiftwise_conv

SPEC = ShiftSpec.from_seed(channels=3, large_kernel=13, small_kernel=3,
                           num_reps=2)


def inputs(dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, 9, 14, generator=generator)
    weight = torch.randn(SPEC.channels * SPEC.num_taps, 1, 3, 3,
                         generator=generator)
    return [t.to(dtype).requires_grad_() for t in (x, weight)]


def new_spec():
    """Nothing is cached in it."""
    return ShiftSpec.from_seed(channels=3, large_kernel=13, small_kernel=3,
                               num_reps=2)


def results(x, weight, spec, form):
    out = shiftwise_conv(x, weight, spec, form=form)
    seeds = [torch.linspace(-1, 1, o.numel()).view(o.shape) for o in out]
    return *out, *torch.autograd.grad(out, (x, weight), seeds)


@pytest.mark.parametrize('form', ['fused', 'shift', 'strip'])
def test_fake_tensors_have_the_shapes_and_leave_nothing(form):
    x, weight = inputs()
    spec = new_spec()
    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(t) for t in (x, weight)]
        out = shiftwise_conv(*fakes, spec, form=form)
        assert all(isinstance(o, FakeTensor) for o in out)
        assert [o.shape for o in out] == [x.shape] * 3
    for ours, expected in zip(results(x, weight, spec, form),
                              results(*inputs(), SPEC, 'strip'),
                              strict=True):
        assert_near(ours, expected)


@pytest.mark.parametrize('op', ['fused_conv', 'shift_add'])
def test_torch_finds_no_fault(op):
    function = getattr(torch.ops.shiftwise_mm, op).default
    if op == 'fused_conv':
        taps = lists_of(SPEC, torch.ones(3, 5), 'vih')
        arguments = (*inputs(), list(taps), 'vih', None, '')
    else:
        y = torch.randn(2, 15, 11, 16, requires_grad=True)
        tables = [
            SPEC.tap_offsets(d).transpose(0, 1).int().flatten() for d in 'hv'
        ]
        tables.append(SPEC.identity_tap.t().int().flatten())
        arguments = (y, tables, 'hvi', 5, 3)
    torch.library.opcheck(function, arguments)


@pytest.mark.parametrize('form', ['fused', 'shift'])
def test_a_compiler_sees_one_graph(form):
    x, weight = inputs()
    spec = new_spec()
    compiled = torch.compile(
        lambda x, weight: shiftwise_conv(x, weight, spec, form=form),
        backend='aot_eager', fullgraph=True)
    for ours, expected in zip(compiled(x, weight),
                              shiftwise_conv(x, weight, SPEC, form=form),
                              strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize('form', ['fused', 'shift'])
def test_calls_from_several_threads(form):
    cases = [inputs(seed=seed) for seed in range(4)]
    expected = [results(*case, SPEC, form) for case in cases]
    wrong = []

    def work(case, wanted):
        for _ in range(5):
            if not all(map(torch.equal, results(*case, SPEC, form), wanted)):
                wrong.append(case)

    threads = [threading.Thread(target=work, args=pair)
               for pair in zip(cases, expected, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_same_bits_with_any_number_of_threads():
    lines = run_python('''
        import hashlib, torch
        from shiftwise_mm.ops import ShiftSpec, shiftwise_conv
        spec = ShiftSpec.from_seed(channels=5, large_kernel=13,
                                   small_kernel=3, num_reps=2)
        g = torch.Generator().manual_seed(0)
        x = torch.randn(3, 5, 30, 40, generator=g, requires_grad=True)
        w = torch.randn(25, 1, 3, 3, generator=g, requires_grad=True)
        for threads in (1, 3):
            torch.set_num_threads(threads)
            out = shiftwise_conv(x, w, spec, form='fused')
            grads = torch.autograd.grad(out, (x, w), out)
            from taichi.lang import impl
            assert impl.current_cfg().cpu_max_num_threads in (
                threads, 4 * threads)
            print(hashlib.sha256(b''.join(
                t.detach().numpy().tobytes()
                for t in (*out, *grads))).hexdigest())
    ''', run=run_forked)
    assert len(lines) == 2 and len(set(lines)) == 1


def test_only_what_is_needed_is_computed():
    x, weight = inputs()
    expected = results(x, weight, SPEC, 'fused')
    for needs in ((True, False), (False, True)):
        some = [t.detach().requires_grad_(need)
                for t, need in zip((x, weight), needs, strict=True)]
        out = shiftwise_conv(*some, SPEC, form='fused')
        seeds = [torch.linspace(-1, 1, o.numel()).view(o.shape) for o in out]
        grad, = torch.autograd.grad(
            out, [t for t in some if t.requires_grad], seeds)
        assert torch.equal(grad, expected[3 if needs[0] else 4])


def test_a_trace_of_auto_holds_no_operator_of_ours():
    x, weight = (t.detach() for t in inputs())
    x = torch.randn(2, 3, 160, 160)
    graph = torch.jit.trace(lambda t: shiftwise_conv(t, weight, SPEC),
                            x).graph
    kinds = {node.kind().partition('::')[0] for node in graph.nodes()}
    assert kinds <= {'prim', 'aten'}
    with pytest.raises(ValueError, match='fused.*trace'):
        torch.jit.trace(
            lambda t: shiftwise_conv(t, weight, SPEC, form='fused'), x)


def test_a_trace_of_a_fresh_spec_is_that_of_a_used_one():
    """How tables were made is no part of it; the check of a trace compares."""
    x, weight = (t.detach() for t in inputs())

    def traced(form):
        spec = new_spec()
        return torch.jit.trace(
            lambda t: shiftwise_conv(t, weight, spec, form=form), x)

    for form in ('strip', 'shift'):
        for a, b in zip(traced(form)(x),
                        shiftwise_conv(x, weight, new_spec(), form=form),
                        strict=True):
            assert_near(a, b)


def test_shift_add_of_small_and_odd_rows():
    """Rows around the length of a run, odd starts, single elements."""
    for n, width in ((1, 1), (3, 7), (3, 8), (5, 9), (3, 16), (1, 17)):
        spec = ShiftSpec.from_seed(channels=2, large_kernel=n + 8,
                                   small_kernel=n, num_reps=2)
        y = torch.randn(1, 2 * spec.num_taps, 2 + n, width + n - 1)
        for ours, expected in zip(
                shift_add(y, spec, backend='taichi'),
                shift_add(y, spec, backend='reference'), strict=True):
            assert_near(ours, expected)


def test_the_counter_of_torch_counts_the_fused_form():
    x, weight = inputs()
    with FlopCounterMode(display=False) as counter:
        out = shiftwise_conv(x, weight, SPEC, form='fused')
        sum(o.sum() for o in out).backward()
    places = 2 * SPEC.num_taps + 1
    counts = {str(op): count
              for op, count in counter.get_flop_counts()['Global'].items()}
    once = 2 * x.numel() * places * 9
    assert counts['shiftwise_mm.fused_conv'] == once
    assert counts['shiftwise_mm.fused_conv_backward'] == 2 * once


@pytest.mark.parametrize('form', ['fused', 'shift'])
def test_taichi_gets_nothing_that_requires_a_gradient(form, monkeypatch):
    """Else it allocates zeros for one, and compiles the kernels once more."""
    launches = []

    def spy(kernel, *given, kept=None):
        launches.append([t.requires_grad for t in given
                         if isinstance(t, torch.Tensor)])
        kernel(*given)

    if form == 'fused':
        monkeypatch.setattr(launcher, 'call', spy)
    for name in ('forward_kernel', 'backward_kernel'):
        make = getattr(shift_add_rows, name)
        monkeypatch.setattr(
            shift_add_rows, name,
            lambda *sizes, make=make: partial(spy, make(*sizes)))
    x = torch.randn(2, 3, 9, 16, requires_grad=True)  # of whole vectors
    weight = inputs()[1]
    out = shiftwise_conv(x, weight, SPEC, form=form)
    torch.autograd.grad(out, (x, weight), out)
    assert len(launches) == 2 and not any(map(any, launches))
