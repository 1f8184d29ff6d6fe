"""The tables of forms and backends: listing, choice by name, bad input."""

import pytest
import torch
from helpers import pretend_cpu, record_forms, run_python
from processes import run_forked
from shiftwise_mm.kernels import runtime
from shiftwise_mm.kernels import shift_add as kernels
from torch._subclasses.fake_tensor import FakeTensorMode

from shiftwise_mm.ops import (
    ShiftSpec,
    available_backends,
    available_forms,
    shift_add,
    shiftwise_conv,
)
from shiftwise_mm.ops.fused import fused_worth

SPEC = ShiftSpec.from_seed(channels=2, large_kernel=13, small_kernel=3)
Y = torch.zeros(1, 10, 6, 7)
X = torch.zeros(1, 2, 4, 5)
WEIGHT = torch.zeros(10, 1, 3, 3)


def test_listing_holds_every_name_and_reason():
    assert available_backends(Y) == dict(taichi=None, reference=None)
    reasons = available_forms(X, SPEC)
    assert list(reasons) == ['fused', 'channels', 'strip', 'shift']
    assert 'no gradients' in reasons.pop('channels')
    assert not any(reasons.values())
    for reasons in (available_backends(Y.int()), available_forms(X.int())):
        assert all('int32' in reason for reason in reasons.values())
    assert 'float64' in available_forms(X.double())['fused']
    wide = ShiftSpec.from_seed(channels=2, large_kernel=13, small_kernel=7)
    assert '3 and 5, not 7' in available_forms(X, wide)['fused']
    assert available_forms(X)['fused'] is None
    listed = available_backends(Y.bfloat16())
    assert 'bfloat16' in listed['taichi']
    assert 'float16' in listed['taichi'] and listed['reference'] is None


def test_a_backend_asked_for_by_name_never_falls_back():
    y = Y.bfloat16()
    with pytest.raises(ValueError, match="backend='taichi' cannot run.*bfl"):
        shift_add(y, SPEC, backend='taichi')
    h, = shift_add(y, SPEC, outputs=('h', ))  # auto takes the other one
    assert h.dtype == torch.bfloat16


def test_auto_takes_taichi_where_it_can(monkeypatch):
    calls = []
    forward = kernels.forward
    monkeypatch.setattr(
        kernels, 'forward', lambda *args: calls.append(1) or forward(*args))
    shift_add(Y, SPEC)
    assert calls == [1]
    shift_add(Y, SPEC, backend='reference')
    assert calls == [1]


def test_the_reason_of_missing_taichi_is_told(monkeypatch):
    monkeypatch.setattr(runtime, '_installed', lambda: False)
    with pytest.raises(ValueError, match='not installed: pip install'):
        shift_add(Y, SPEC, backend='taichi')
    assert 'not installed' in available_backends(Y)['taichi']
    shift_add(Y, SPEC)


def test_a_second_gpu_is_refused_with_the_mend():
    assert 'CUDA_VISIBLE_DEVICES' in runtime.reason(torch.device('cuda:1'))
    assert 'not on meta' in runtime.reason(torch.device('meta'))


def test_the_fused_form_on_cuda_is_there_by_name_only():
    """Seen through tensors that have no values: there is no GPU."""
    wide = ShiftSpec.from_seed(channels=64, large_kernel=51, small_kernel=7)
    with FakeTensorMode():
        x = torch.empty(2, 64, 128, 128, device='cuda')
        second = torch.empty(1, 2, 4, 5, device='cuda:1')
        many = torch.empty(1, 2**18, 1, 1, device='cuda')
    for dtype in (torch.float32, torch.float64, torch.float16,
                  torch.bfloat16):
        assert available_forms(x.to(dtype), wide)['fused'] is None
    assert not fused_worth(x, True) and not fused_worth(x, False)
    assert 'CUDA_VISIBLE_DEVICES' in available_forms(second)['fused']
    # Two strips of 8 places and one more, 49 numbers, 32 workers each.
    assert '32 bits' in available_forms(many, wide)['fused']
    assert available_forms(many, SPEC)['fused'] is None


def test_too_many_elements_are_refused():
    # Nothing is allocated: one element, seen many times.
    y = torch.zeros(1).expand(2**31).view(1, 2**16, 1, 2**15)
    assert '32 bits' in available_backends(y)['taichi']
    assert '32 bits' in available_forms(y)['fused']
    many = torch.zeros(1).expand(2**24).view(2**23, 2, 1, 1)  # of planes
    assert available_forms(many)['fused'] is None
    assert '32 bits' in available_forms(many, SPEC)['fused']
    for shape in ((1, 2, 1, 2**20 + 1), (1, 2, 2**20 + 1, 1)):
        long = torch.zeros(1).expand(shape)
        assert '1048576, not 1048577' in available_forms(long)['fused']
        assert available_forms(long[..., :2**20, :2**20])['fused'] is None


@pytest.mark.parametrize('change, error, words', [
    (dict(y=Y.int()), TypeError, 'y must be a floating.*int32'),
    (dict(y=Y[0]), ValueError, r'y must have 4 dim.*\(10, 6, 7\)'),
    (dict(y=Y[:, 1:]), ValueError, 'y must have 10 channels.*9'),
    (dict(y=Y[..., :2]), ValueError, 'y must be at least 3 x 3'),
    (dict(y=[1.]), TypeError, 'y must be a tensor.*list'),
    (dict(spec=7), TypeError, 'spec must be a ShiftSpec.*int'),
    (dict(outputs=('h', 'x')), ValueError, r"outputs.*\('h', 'v', 'i'\).*'x'"),
    (dict(outputs=()), ValueError, 'outputs.*names'),
    (dict(backend='cuda'), ValueError, "backend.*'taichi'.*'cuda'"),
])
def test_bad_input_of_shift_add(change, error, words):
    arguments = {**dict(y=Y, spec=SPEC, outputs=('h', ), backend='auto'),
                 **change}
    with pytest.raises(error, match=words):
        shift_add(arguments.pop('y'), arguments.pop('spec'), **arguments)


@pytest.mark.parametrize('change, error, words', [
    (dict(x=X.long()), TypeError, 'x must be a floating.*int64'),
    (dict(x=X[0, 0]), ValueError, r'x must have 4 dim.*\(4, 5\)'),
    (dict(x=X.repeat(1, 2, 1, 1)), ValueError, 'x must have 2 channels.*4'),
    (dict(weight=WEIGHT[1:]), ValueError, r'weight.*\(10, 1, 3, 3\).*\(9, '),
    (dict(weight=WEIGHT.int()), TypeError, 'weight must be a floating.*int'),
    (dict(weight=WEIGHT.double()), TypeError, 'weight.*float32.*float64'),
    (dict(outputs='x'), ValueError, "outputs.*'x'"),
    (dict(form='fast'), ValueError, "form.*'strip'.*'fast'"),
])
def test_bad_input_of_shiftwise_conv(change, error, words):
    arguments = {**dict(x=X, weight=WEIGHT, spec=SPEC), **change}
    with pytest.raises(error, match=words):
        shiftwise_conv(
            arguments.pop('x'), arguments.pop('weight'),
            arguments.pop('spec'), **arguments)


def test_a_tiled_spec_has_no_identity_output():
    spec = ShiftSpec.tiled(channels=2, large_kernel=13, small_kernel=3)
    with pytest.raises(ValueError, match=r"outputs.*\('h', 'v'\).*'i'"):
        shift_add(Y, spec)
    assert len(shift_add(Y, spec, outputs=('h', 'v'))) == 2


def test_nothing_happens_at_import():
    lines = run_python('''
        import os, sys
        import cv2, mmengine, numpy as np, torch  # theirs is theirs
        env = dict(os.environ)
        threads = torch.get_num_threads()
        state = torch.get_rng_state(), np.random.get_state()[1].copy()
        import shiftwise_mm, shiftwise_mm.ops, shiftwise_mm.models
        assert not {'taichi', 'mmcv', 'mmdet'} & set(sys.modules)
        assert torch.equal(state[0], torch.get_rng_state())
        assert (state[1] == np.random.get_state()[1]).all()
        assert dict(os.environ) == env
        assert torch.get_num_threads() == threads
        print('clean')
    ''')
    assert lines == ['clean']


def test_taichi_is_initialised_lazily_and_silently():
    lines = run_python('''
        import sys, threading, torch
        torch.set_num_threads(1)
        from shiftwise_mm.ops import ShiftSpec, shift_add
        spec = ShiftSpec.from_seed(channels=1, large_kernel=3, small_kernel=3)
        y = torch.ones(1, 1, 5, 5)
        shift_add(y, spec, backend='reference')
        assert 'taichi' not in sys.modules
        shift_add(y, spec, backend='taichi')
        from taichi.lang import impl
        program = impl.get_runtime().prog
        assert impl.current_cfg().cpu_max_num_threads == 1
        shift_add(y, spec, backend='taichi')
        assert impl.get_runtime().prog is program
        torch.set_num_threads(2)
        shift_add(y, spec, backend='taichi')
        import os  # four times as many, where torch's fill all cores
        cores = len(os.sched_getaffinity(0))
        assert impl.current_cfg().cpu_max_num_threads == (
            2 if cores > 2 else 8)
        assert len(threading.enumerate()) == 1, threading.enumerate()
        print('done')
    ''')
    assert lines == ['done']  # no banner either, and a clean exit


def test_the_users_taichi_is_respected():
    lines = run_python('''
        import taichi as ti, torch
        ti.init(arch=ti.cpu, log_level=ti.ERROR)
        field = ti.field(ti.f32, shape=3)
        field.fill(2.)
        from shiftwise_mm.ops import ShiftSpec, shift_add
        spec = ShiftSpec.from_seed(channels=1, large_kernel=9, small_kernel=3)
        y = torch.rand(1, 3, 5, 8)
        for a, b in zip(shift_add(y, spec, backend='taichi'),
                        shift_add(y, spec, backend='reference')):
            assert torch.allclose(a, b, atol=1e-5)
        print(field[1])  # a second ti.init would have destroyed it
    ''', run=run_forked, ENABLE_TAICHI_HEADER_PRINT='0',
        TI_SKIP_VERSION_CHECK='ON')
    assert lines[-1] == '2.0'


def test_a_foreign_arch_that_does_not_fit(monkeypatch):
    monkeypatch.setattr(runtime, 'is_foreign', lambda: True)
    monkeypatch.setattr(runtime, '_arch_name', lambda: 'cuda')
    with pytest.raises(ValueError, match='initialised by the caller.*cuda'):
        shift_add(Y, SPEC, backend='taichi')
    with pytest.warns(RuntimeWarning, match='passed over.*arch=cuda'):
        shift_add(Y, SPEC)


def test_the_kernels_take_a_read_only_home(tmp_path):
    # Root may write anywhere: a file stands where the folder would be.
    blocker = tmp_path / 'cache'
    blocker.write_text('')
    lines = run_python('''
        import torch
        from shiftwise_mm.ops import ShiftSpec, shift_add
        spec = ShiftSpec.from_seed(channels=1, large_kernel=3, small_kernel=3)
        shift_add(torch.ones(1, 1, 5, 5), spec, backend='taichi')
        print('done')
    ''', run=run_forked, XDG_CACHE_HOME=str(blocker), TMPDIR=str(tmp_path))
    assert lines == ['done']


def test_auto_takes_the_fused_form_where_it_pays(monkeypatch):
    """By shape: large planes, and smaller ones where gradients are needed."""
    pretend_cpu(monkeypatch, 'Zen 5')
    taken = record_forms(monkeypatch)
    weight = WEIGHT.repeat(32, 1, 1, 1)
    spec = ShiftSpec.from_seed(channels=64, large_kernel=13, small_kernel=3)
    for shape, grad, expected in (
        ((4, 64, 28, 28), False, 'fused'), ((4, 64, 24, 24), False, 'strip'),
        ((9, 64, 14, 14), True, 'fused'), ((16, 64, 12, 12), True, 'strip'),
        ((1, 64, 28, 28), True, 'strip')):
        shiftwise_conv(torch.zeros(shape, requires_grad=grad), weight, spec)
        assert taken.pop() == expected, shape
    with torch.no_grad():
        shiftwise_conv(torch.zeros(4, 64, 24, 24, requires_grad=True), weight,
                       spec)
    assert taken.pop() == 'strip'


def test_the_fused_form_needs_vectors_of_the_users_taichi():
    lines = run_python('''
        import taichi as ti, torch
        ti.init(arch=ti.cpu, log_level=ti.ERROR)
        from shiftwise_mm.ops import ShiftSpec, available_forms, shiftwise_conv
        x = torch.zeros(1, 1, 8, 8)
        print(available_forms(x)['fused'])
        ti.init(arch=ti.cpu, log_level=ti.ERROR, real_matrix_scalarize=False)
        print(available_forms(x)['fused'])
    ''', run=run_forked, ENABLE_TAICHI_HEADER_PRINT='0',
        TI_SKIP_VERSION_CHECK='ON')
    first, second = (line for line in lines if not line.startswith('[Tai'))
    assert 'real_matrix_scalarize=False' in first and second == 'None'
