"""Measured choices of a form: taken once, kept, the same on all ranks."""
import ast
import json
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from helpers import assert_near, run_python
from processes import run_forked
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from shiftwise_mm.ops import (
    ShiftSpec,
    autotune,
    forms,
    set_autotune,
    shiftwise_conv,
)

SPEC = ShiftSpec.from_seed(channels=2, large_kernel=13, small_kernel=3)


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """An empty memory and cache folder, and the switch on."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    monkeypatch.setattr(autotune, '_memory', {})
    set_autotune(True)
    yield
    set_autotune(False)


@pytest.fixture
def table(monkeypatch):
    """Stand-in forms: the last is fast, the cost rule takes the first."""
    return StandIn(monkeypatch)


class StandIn:
    """Forms that note their calls, each as slow as is set."""

    def __init__(self, monkeypatch):
        self.seconds = dict(first=.05, middle=.05, last=0.)
        self.reasons = dict.fromkeys(self.seconds)
        self.calls = []
        self.inputs = []
        monkeypatch.setattr(forms, '_FORMS', tuple(
            (name, lambda x, spec, name=name: self.reasons[name],
             lambda *_: True, self.form(name))
            for name in self.seconds))

    def form(self, name):

        def function(x, weight, spec, outputs, mask=None):
            self.calls.append(name)
            self.inputs.append((x, weight))
            if isinstance(self.seconds[name], Exception):
                raise self.seconds[name]
            time.sleep(self.seconds[name])
            return tuple(x * weight.sum() for _ in outputs)

        return function

    def taken(self, x=None, **kwargs):
        """The form that computes, and how many calls measured before it."""
        self.calls.clear()
        self.inputs.clear()
        x = torch.ones(1, 2, 4, 5) if x is None else x
        shiftwise_conv(x, torch.ones(10, 1, 3, 3), SPEC, **kwargs)
        return self.calls[-1], len(self.calls) - 1


def test_the_fastest_is_taken_and_measured_once(table):
    name, measured = table.taken()
    assert name == 'last'
    assert measured >= 5 + 2 * 3  # what is slow is given up after three
    table.seconds.update(first=0., last=.05)
    assert table.taken() == ('last', 0)
    set_autotune(False)
    assert table.taken() == ('first', 0)
    set_autotune(True)
    assert table.taken() == ('last', 0)
    assert table.taken(torch.ones(1, 2, 4, 6))[0] == 'first'  # measured anew


def test_each_case_has_a_choice_of_its_own(table, monkeypatch):
    table.seconds = dict.fromkeys(table.seconds, 0.)
    x, weight = torch.ones(2, 2, 4, 5), torch.ones(10, 1, 3, 3)
    longer = ShiftSpec.from_seed(channels=2, large_kernel=15, small_kernel=3)
    twice = ShiftSpec.from_seed(channels=2, large_kernel=13, small_kernel=3,
                                num_reps=2)
    small = ShiftSpec.from_seed(channels=2, large_kernel=5, small_kernel=1)

    def needing(tensor):
        return tensor.clone().requires_grad_()

    for case in ((x, weight, SPEC), (x[1:], weight, SPEC),
                 (x.double(), weight.double(), SPEC),
                 (x.to(memory_format=torch.channels_last), weight, SPEC),
                 (needing(x), weight, SPEC), (x, needing(weight), SPEC),
                 (needing(x), needing(weight), SPEC), (x, weight, longer),
                 (x, weight, twice), (x, weight[..., :1, :1], small),
                 (x, weight, SPEC, ('h', )), (x, weight, SPEC, ('v', ))):
        *inputs, outputs = (*case, ('h', 'v', 'i'))[:4]
        for again in (False, True):
            table.calls.clear()
            shiftwise_conv(*inputs, outputs=outputs)
            assert (len(table.calls) == 1) == again, inputs[2:]
    with torch.no_grad():  # as the first
        assert table.taken(needing(x))[1] == 0
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 77)
    assert table.taken(x)[1] > 1


def test_it_is_measured_on_tensors_of_the_same_kind(table):
    x = torch.ones(2, 2, 4, 5, dtype=torch.float64).permute(0, 3, 1, 2)
    x = x[:, :2].requires_grad_()
    weight = torch.ones(10, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    shiftwise_conv(x, weight, SPEC)
    *measured, (own, _) = table.inputs
    assert own is x
    for data, kernels in measured:
        assert data is not x and kernels is not weight
        assert data.shape == x.shape and kernels.shape == weight.shape
        assert data.dtype == kernels.dtype == torch.float64
        assert data.requires_grad and kernels.requires_grad
        order = sorted(range(4), key=lambda d: -data.stride(d))
        assert order == sorted(range(4), key=lambda d: -x.stride(d))
        assert data.std() > 0
    table.inputs.clear()
    with torch.no_grad():
        shiftwise_conv(x, weight, SPEC)
    assert not table.inputs[0][0].requires_grad


def test_nothing_of_the_callers_is_touched(table):
    x = torch.ones(1, 2, 4, 5, requires_grad=True)
    weight = torch.ones(10, 1, 3, 3, requires_grad=True)
    state = torch.get_rng_state()
    modes, computed, saved = [], [], []

    class Watch(torch.overrides.TorchFunctionMode):

        def __torch_function__(self, function, types, args=(), kwargs=None):
            modes.append(function)
            return function(*args, **kwargs or {})

    class Count(TorchDispatchMode):

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            computed.append(function)
            return function(*args, **kwargs or {})

    with Watch(), Count(), torch.autograd.graph.saved_tensors_hooks(
            lambda t: saved.append(t) or t, lambda t: t):
        out = shiftwise_conv(x, weight, SPEC, outputs=('h', ))
    assert len(table.calls) > 1
    assert modes.count(torch.Tensor.sum) == 1  # of the call, not the measuring
    assert computed.count(torch.ops.aten.sum.default) == 1
    assert all(t.data_ptr() in (x.data_ptr(), weight.data_ptr())
               or t.dim() == 0 for t in saved)
    assert torch.equal(torch.get_rng_state(), state)
    assert x.grad is None and weight.grad is None
    out[0].sum().backward()
    assert (x.grad == 90).all() and (weight.grad == 40).all()


@pytest.mark.parametrize('reentrant', [False, True])
def test_checkpointing_measures_without_harm(reentrant):
    x, weight = real_inputs()
    run = lambda x: sum(shiftwise_conv(x, weight, SPEC))  # noqa: E731
    checkpoint(run, x, use_reentrant=reentrant).sum().backward()
    expected, = torch.autograd.grad(
        sum(shiftwise_conv(x, weight, SPEC, form='shift')).sum(), x)
    assert_near(x.grad, expected)


def real_inputs(dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_()
            for shape in ((2, 2, 9, 11), (10, 1, 3, 3))]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_the_real_forms_equal_the_reference(dtype):
    x, weight = real_inputs(dtype)
    out = shiftwise_conv(x, weight, SPEC)
    y = torch.nn.functional.conv2d(x, weight, padding=2, groups=2)
    expected = forms.shift_add(y, SPEC, backend='reference')
    for ours, theirs in zip(
            (*out, *torch.autograd.grad(sum(out).sum(), (x, weight))),
            (*expected,
             *torch.autograd.grad(sum(expected).sum(), (x, weight))),
            strict=True):
        assert_near(ours, theirs)
    (entry, ), = (cases.values() for cases in autotune._memory.values())
    can_run = {name for name, why in forms.available_forms(x, SPEC).items()
               if why is None}
    assert entry['ms'].keys() == can_run and len(can_run) > 1
    assert entry['ms'][entry['form']] == min(entry['ms'].values())


SECOND_PROCESS = '''
    import torch
    from shiftwise_mm.ops import ShiftSpec, forms, set_autotune
    from shiftwise_mm.ops import shiftwise_conv
    torch.set_num_threads({threads})
    calls = []
    forms._FORMS = tuple(
        (name, lambda *a: None, lambda *a: True,
         lambda x, *a, name=name, **k: calls.append(name) or [x])
        for name in ('first', 'middle', 'last'))
    set_autotune(True)
    spec = ShiftSpec.from_seed(channels=2, large_kernel=13, small_kernel=3)
    inputs = torch.ones(1, 2, 4, 5), torch.ones(10, 1, 3, 3)
    shiftwise_conv(*inputs, spec)
    print(calls[-1], len(calls))
    calls.clear()
    torch.set_num_threads({threads} + 1)
    shiftwise_conv(*inputs, spec)
    print('measured', len(calls) > 1)
'''


def test_a_later_process_reads_the_choice(table, tmp_path):
    assert table.taken()[0] == 'last'
    file = tmp_path / 'shiftwise_mm' / 'autotune.json'
    (environment, cases), = json.loads(file.read_text()).items()
    assert f'torch {torch.__version__}' in environment
    (case, entry), = cases.items()
    assert case.startswith('1x2x4x5 in BCHW, torch.float32, cpu, ')
    assert 'M13 N3 R1' in case and entry['form'] == 'last'
    assert [f.name for f in file.parent.iterdir()] == [file.name]
    lines = run_python(SECOND_PROCESS.format(threads=torch.get_num_threads()),
                       run=run_forked)
    assert lines == ['last 1', 'measured True']
    now = json.loads(file.read_text())
    assert len(now) == 2  # the other number of threads
    assert now[environment] == {case: entry}


def test_what_others_have_written_meanwhile_stays(table, tmp_path):
    table.taken()
    file = tmp_path / 'shiftwise_mm' / 'autotune.json'
    content = json.loads(file.read_text())
    environment, = content
    other = {'form': 'middle', 'ms': dict(first=2., middle=1., last=3.)}
    known, = content[environment]
    content[environment][known.replace('4x5', '8x9')] = other
    content['another machine'] = {known: other}
    file.write_text(json.dumps(content))
    # Found in the file before anything is measured.
    assert table.taken(torch.ones(1, 2, 8, 9)) == ('middle', 0)
    table.taken(torch.ones(1, 2, 5, 5))
    now = json.loads(file.read_text())
    assert now['another machine'] == content['another machine']
    assert len(now[environment]) == 3


@pytest.mark.parametrize('text', [
    '', '{"a": ', '[1]', '{"a": [1]}', '{"a": {"b": {"form": "last"}}}',
    '{"a": {"b": {"form": "last", "ms": {"first": 1}}}}',
    '{"a": {"b": {"form": "last", "ms": ["last"]}}}', b'\xff\xfe\x00'
])
def test_a_corrupt_file_is_ignored_and_left_alone(table, tmp_path, text):
    file = tmp_path / 'shiftwise_mm' / 'autotune.json'
    file.parent.mkdir()
    data = text if isinstance(text, bytes) else text.encode()
    file.write_bytes(data)
    table.seconds = dict(first=.02, middle=.02, last=0.)
    with pytest.warns(RuntimeWarning, match='autotune.json cannot be read'):
        set_autotune(True)
    with pytest.warns(RuntimeWarning, match='autotune.json cannot be read'):
        assert table.taken()[0] == 'last'
    assert table.taken() == ('last', 0)
    assert file.read_bytes() == data


def test_a_folder_that_cannot_be_written_only_warns(table, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', '/proc/none')  # root writes elsewhere
    with pytest.warns(RuntimeWarning, match='cannot be written to /proc'):
        assert table.taken()[0] == 'last'
    assert table.taken() == ('last', 0)


def test_no_half_written_file_is_left(table, monkeypatch, tmp_path):

    def full(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(autotune.autotune_file.os, 'replace', full)
    with pytest.warns(RuntimeWarning, match='No space left'):
        assert table.taken()[0] == 'last'
    assert not any((tmp_path / 'shiftwise_mm').iterdir())


def test_a_form_that_fails_is_left_out_with_a_warning(table, tmp_path):
    table.seconds['last'] = ValueError('no such luck')
    table.seconds['middle'] = 0.
    with pytest.warns(RuntimeWarning, match="form='last' is left out.*"
                      '1x2x4x5.*ValueError: no such luck'):
        assert table.taken()[0] == 'middle'
    assert table.taken() == ('middle', 0)
    # Later processes try it again: it may have lacked memory.
    content = json.loads(
        (tmp_path / 'shiftwise_mm' / 'autotune.json').read_text())
    assert not any(content.values())


def test_where_all_fail_the_rule_decides(table):
    table.seconds = {name: RuntimeError(name) for name in table.seconds}
    with pytest.warns(RuntimeWarning), pytest.raises(RuntimeError,
                                                     match='first'):
        table.taken()
    with warnings.catch_warnings(), pytest.raises(RuntimeError):
        warnings.simplefilter('error')
        table.taken()
    assert table.calls == ['first']


def test_a_choice_that_cannot_run_any_more_falls_to_the_rule(table):
    assert table.taken()[0] == 'last'
    table.reasons['last'] = 'gone'
    assert table.taken() == ('first', 0)
    table.reasons['first'] = 'gone'
    assert table.taken() == ('middle', 0)
    table.reasons.update(first=None, last=None)
    assert table.taken() == ('last', 0)


def test_a_form_that_could_not_run_then_is_measured_when_it_can(table):
    table.reasons['last'] = 'not yet'
    table.seconds['middle'] = 0.
    assert table.taken()[0] == 'middle'
    assert 'last' not in table.calls
    table.reasons['last'] = None
    table.seconds['middle'] = .05
    assert table.taken()[0] == 'last'
    set_autotune(True)  # the file knows it as well
    assert table.taken() == ('last', 0)


def test_a_form_asked_for_by_name_is_not_measured(table):
    assert table.taken(form='middle') == ('middle', 0)


def test_threads_measure_once(table):
    barrier, taken = threading.Barrier(4), []
    inputs = torch.ones(1, 2, 4, 5), torch.ones(10, 1, 3, 3)

    def work():
        barrier.wait()
        shiftwise_conv(*inputs, SPEC)
        taken.append(table.calls[-1])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    own = [name for (x, _), name in zip(table.inputs, table.calls,
                                        strict=True) if x is inputs[0]]
    assert own == ['last'] * 4
    assert table.calls.count('first') == 3  # of one measuring


def test_no_measuring_under_autocast(table):
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert table.taken() == ('first', 0)
    table.taken()  # of float32, which says nothing of bfloat16
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert table.taken() == ('first', 0)
    shiftwise_conv(torch.ones(1, 2, 4, 5).bfloat16(),
                   torch.ones(10, 1, 3, 3).bfloat16(), SPEC)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert table.taken() == ('last', 0)


def test_no_measuring_of_fake_and_empty_tensors(table):
    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(t) for t in (torch.ones(1, 2, 4, 5),
                                               torch.ones(10, 1, 3, 3))]
        shiftwise_conv(*fakes, SPEC)
    assert table.calls == ['first']
    assert table.taken(torch.ones(0, 2, 4, 5)) == ('first', 0)
    table.taken()
    table.calls.clear()
    with mode:
        shiftwise_conv(*fakes, SPEC)
    assert table.calls == ['last']


def test_no_measuring_in_transforms(table):
    weight = torch.ones(10, 1, 3, 3)
    x = torch.ones(1, 2, 4, 5)
    torch.func.grad(lambda x: shiftwise_conv(x, weight, SPEC)[0].sum())(x)
    torch.vmap(lambda x: shiftwise_conv(x, weight, SPEC)[0])(x[None])
    assert table.calls == ['first', 'first']


def test_measuring_in_inference_mode(table):
    with torch.inference_mode():
        assert table.taken()[0] == 'last'
    assert table.taken() == ('last', 0)


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
def test_no_measuring_in_traces(table):
    x, weight = torch.ones(1, 2, 4, 5), torch.ones(10, 1, 3, 3)
    torch.jit.trace(lambda x: shiftwise_conv(x, weight, SPEC), x,
                    check_trace=False)
    assert table.calls == ['first']


@pytest.fixture
def compilers_table(monkeypatch):
    """Forms that add 1, 2 and 3, for compilers cannot see a list grow."""
    monkeypatch.setattr(forms, '_FORMS', tuple(
        (name, lambda x, spec: None, lambda *_: True,
         lambda x, w, s, o, mask, number=number: (x + number, ))
        for number, name in enumerate(('first', 'middle', 'last'), 1)))


def remember(x, form):
    environment = autotune.autotune_file.environment('cpu')
    case = autotune._case(x, (False, False), SPEC, ('h', ))
    autotune._memory.setdefault(environment, {})[case] = {
        'form': form, 'ms': dict(first=1., middle=1., last=1.)}


def test_compilers_take_what_is_remembered(compilers_table):
    torch.compiler.reset()
    weight = torch.ones(10, 1, 3, 3)
    compiled = torch.compile(
        lambda x: shiftwise_conv(x, weight, SPEC, outputs=('h', ))[0],
        backend='eager', fullgraph=True)
    x = torch.zeros(1, 2, 4, 5)
    remember(x, 'last')
    assert (compiled(x) == 3).all()
    assert len(autotune._memory) == 1  # and not measured
    for width in range(6, 20):  # one graph serves all
        assert (compiled(torch.zeros(1, 2, 4, width)) == 1).all()
    torch.compiler.reset()


def test_exporters_take_what_is_remembered(compilers_table):

    class Layer(torch.nn.Module):

        def forward(self, x, weight):
            return shiftwise_conv(x, weight, SPEC, outputs=('h', ))[0]

    x, weight = torch.zeros(3, 2, 4, 5), torch.ones(10, 1, 3, 3)
    remember(x, 'middle')
    for strict in (False, True):
        program = torch.export.export(Layer(), (x, weight), strict=strict)
        assert (program.module()(x, weight) == 2).all()
    width = torch.export.Dim('width', min=2, max=100)
    program = torch.export.export(Layer(), (x, weight), strict=False,
                                  dynamic_shapes=({3: width}, None))
    assert (program.module()(x, weight) == 1).all()


RANK = '''
    import sys, time, torch, torch.distributed as dist
    from shiftwise_mm.ops import ShiftSpec, forms, set_autotune
    from shiftwise_mm.ops import shiftwise_conv
    rank = {rank}
    calls = []

    def form(name, slow_on):
        def function(x, weight, spec, outputs, mask=None):
            calls.append(name)
            time.sleep(.02 if slow_on == rank else 0)
            return x,
        return function

    # Each rank finds another one fastest.
    forms._FORMS = tuple(
        (name, lambda *a: None, lambda *a: True, form(name, slow_on))
        for name, slow_on in (('first', 0), ('last', 1)))
    dist.init_process_group('gloo', init_method='{method}', rank=rank,
                            world_size=2)
    set_autotune(True)
    spec = ShiftSpec.from_seed(channels=2, large_kernel=13, small_kernel=3)

    def taken(width):
        calls.clear()
        shiftwise_conv(torch.ones(1, 2, 4, width), torch.ones(10, 1, 3, 3),
                       spec)
        return calls[-1], len(calls) > 1

    got = []
    # Not the same cases in the same order, and one rank has more of them.
    for width in ((5, 6, 7, 5), (7, 6, 5, 8, 9))[rank]:
        got.append((width, *taken(width)))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert taken(5) == ('first', False)
    dist.barrier()
    print(got)
    dist.destroy_process_group()
    assert taken(5) == (('last', 'first')[rank], False)  # its own choice
'''


def test_ranks_agree_though_they_measure_otherwise(tmp_path):

    def run(rank):
        (tmp_path / str(rank)).mkdir()
        line, = run_python(
            RANK.format(rank=rank, method=f'file://{tmp_path}/store'),
            run=run_forked, XDG_CACHE_HOME=str(tmp_path / str(rank)))
        return ast.literal_eval(line)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(run, range(2))
    assert first[3] == (*first[0][:2], False)  # known by now
    assert all(measured for _, _, measured in (*first[:3], *second))
    forms_of = [{width: name for width, name, _ in rank}
                for rank in (first, second)]
    for width in (5, 6, 7):
        assert forms_of[0][width] == forms_of[1][width]
    assert forms_of[1][8] == forms_of[1][9] == 'first'  # nobody else met it


def test_a_job_whose_store_has_gone_follows_the_rule(table, monkeypatch):

    class Group:

        def get_group_store(self):
            return self

        def compare_set(self, *args):
            raise RuntimeError('connection reset')

    monkeypatch.setattr(autotune, 'dist', SimpleNamespace(
        is_available=lambda: True, is_initialized=lambda: True,
        get_world_size=lambda: 2, group=SimpleNamespace(WORLD=Group())))
    with pytest.warns(RuntimeWarning, match='no agreement.*1x2x4x5.*reset'):
        assert table.taken()[0] == 'first'
    assert table.taken() == ('first', 0)


def test_a_job_that_cannot_measure_follows_the_rule(table, monkeypatch):
    inputs = [t.bfloat16() for t in (torch.ones(1, 2, 4, 5),
                                     torch.ones(10, 1, 3, 3))]
    shiftwise_conv(*inputs, SPEC)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        shiftwise_conv(*inputs, SPEC)
        assert table.calls.pop() == 'last'
        # A peer may not remember the same.
        monkeypatch.setattr(autotune, 'dist', SimpleNamespace(
            is_available=lambda: True, is_initialized=lambda: True,
            get_world_size=lambda: 2))
        shiftwise_conv(*inputs, SPEC)
        assert table.calls.pop() == 'first'


@pytest.mark.parametrize('value', [1, None, 'yes'])
def test_the_switch_takes_a_bool(value):
    with pytest.raises(TypeError, match=f'on must be True.*{value!r}'):
        set_autotune(value)
