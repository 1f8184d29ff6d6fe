"""The kernels of a GPU, on the CPU; on Vulkan through test_vulkan.py.

With ``SHIFTWISE_TEST_ARCH=vulkan`` this process initialises Taichi for
Vulkan, as a user would, and the kernels of a GPU are chosen by themselves.
"""
import os

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_near
from shiftwise_mm.kernels import fused_gpu, fused_launch, runtime
from taps import lists_of

from shiftwise_mm.ops import (
    ShiftSpec,
    available_forms,
    shift_add,
    shiftwise_conv,
)

CPU = torch.device('cpu')
# (B, C, H, W, M, N, R): odd sizes, rows that leave blocks part empty, one
# element, taps wholly outside, every N and R.
CASES = [
    (2, 3, 9, 14, 13, 3, 1),
    (1, 2, 17, 11, 51, 5, 2),
    (3, 2, 5, 7, 47, 3, 3),
    (2, 2, 1, 1, 13, 3, 2),
    (2, 1, 35, 26, 13, 5, 1),
    (1, 2, 6, 9, 21, 7, 2),
]
IDS = ['B{}C{}-{}x{}-M{}N{}R{}'.format(*case) for case in CASES]
DTYPES = [torch.float16, torch.float64]


@pytest.fixture(scope='module', autouse=True)
def arch():
    """Vulkan, if asked for; else what the package starts by itself."""
    if os.environ.get('SHIFTWISE_TEST_ARCH') == 'vulkan':
        import taichi as ti
        ti.init(arch=ti.vulkan, enable_fallback=False, log_level=ti.ERROR)
        assert runtime._arch_name() == 'vulkan'


@pytest.fixture(autouse=True)
def kernels_of_a_gpu(monkeypatch, arch):
    if os.environ.get('SHIFTWISE_TEST_ARCH') != 'vulkan':
        monkeypatch.setattr(runtime, 'on_cpu', lambda device: False)
    assert not runtime.on_cpu(CPU)

    def never(*args):
        raise AssertionError("the CPU's kernel was taken")

    monkeypatch.setattr(fused_launch, 'forward', never)


def random(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype)


def make(case):
    """A spec, ``x`` and small kernels."""
    b, c, h, w, m, n, r = case
    spec = ShiftSpec.from_seed(channels=c, large_kernel=m, small_kernel=n,
                               num_reps=r, seed=m)
    return spec, random(b, c, h, w), random(c * spec.num_taps, 1, n, n)


def reference(x, weight, spec, outputs):
    y = F.conv2d(x, weight, padding=spec.small_kernel - 1, groups=x.shape[1])
    return shift_add(y, spec, outputs=tuple(outputs), backend='reference')


@pytest.mark.parametrize('outputs, threads', [
    ('vih', None), ('vih', 1), ('h', None), ('vi', None)])
@pytest.mark.parametrize('case', CASES, ids=IDS)
def test_fused_with_taps_missing(case, outputs, threads, monkeypatch, poison):
    """Against convolution and slices with the missing taps' kernels zero."""
    if threads:  # few workers, which take several places each
        monkeypatch.setattr(fused_gpu, '_THREADS', threads)
    spec, x, weight = make(case)
    kept = random(spec.channels, spec.num_taps, seed=2) > 0
    kept[0] = True
    kept[1:2] = False  # a channel without any
    x.requires_grad_(), weight.requires_grad_()
    expected = reference(x, weight * kept.view(-1, 1, 1, 1), spec, outputs)
    seeds = [random(*x.shape, seed=3 + i) for i in range(len(outputs))]
    want_x, want_weight = torch.autograd.grad(expected, (x, weight), seeds)

    taps = lists_of(spec, kept, outputs)
    given = [t.detach().float() for t in (x, weight)]
    ours = fused_gpu.forward(*given, taps, outputs)
    for a, b in zip(ours, expected, strict=True):
        assert_near(a, b)
    grads = [s.float() for s in seeds]
    grad_x, grad = fused_gpu.backward(grads, *given, taps, outputs, True, True)
    assert_near(grad_x, want_x)
    assert_near(grad, want_weight)
    again = fused_gpu.backward(grads, *given, taps, outputs, True, True)
    assert torch.equal(again[0], grad_x) and torch.equal(again[1], grad)
    only_x = fused_gpu.backward(grads, *given, taps, outputs, True, False)
    assert torch.equal(only_x[0], grad_x) and not only_x[1].numel()
    only_weight = fused_gpu.backward(grads, *given, taps, outputs, False, True)
    assert torch.equal(only_weight[1], grad) and not only_weight[0].numel()


def test_no_taps_at_all():
    spec, x, weight = make(CASES[0])
    empty = torch.empty(0, dtype=torch.int32)
    taps = fused_launch.Taps.of(
        empty.view(0, 1), torch.full((len(weight), 1), -1), empty, empty,
        empty, torch.zeros(10, dtype=torch.int32))
    given = x.float(), weight.float()
    out, = fused_gpu.forward(*given, taps, 'v')
    grads = fused_gpu.backward([x.float()], *given, taps, 'v', True, True)
    for tensor, like in zip((out, *grads), (x, *given), strict=True):
        assert tensor.shape == like.shape and not tensor.any()


@pytest.mark.parametrize('case', CASES, ids=IDS)
def test_the_form_by_name(case, poison):
    """The operator as users call it, in float32 and any layout."""
    spec, x, weight = (t.requires_grad_() if isinstance(t, torch.Tensor)
                       else t for t in make(case))
    assert available_forms(x.float(), spec)['fused'] is None
    expected = reference(x, weight, spec, 'hvi')
    wanted = torch.autograd.grad(expected, (x, weight), expected)
    inputs = [t.detach().float() for t in (x, weight)]
    inputs[0] = inputs[0].contiguous(memory_format=torch.channels_last)
    inputs = [t.requires_grad_() for t in inputs]
    ours = shiftwise_conv(*inputs, spec, form='fused')
    grads = torch.autograd.grad(ours, inputs,
                                [e.detach().float() for e in expected])
    for a, b in zip((*ours, *grads), (*expected, *wanted), strict=True):
        assert_near(a, b)


@pytest.mark.parametrize('dtype', [*DTYPES, torch.bfloat16], ids=str)
def test_the_form_in_other_dtypes(dtype, poison):
    spec, x, weight = make(CASES[0])
    inputs = [t.to(dtype).requires_grad_() for t in (x, weight)]
    exact = [t.detach().double().requires_grad_() for t in inputs]
    ours = shiftwise_conv(*inputs, spec, form='fused')
    seeds = [o.detach() for o in ours]
    expected = reference(*exact, spec, 'hvi')
    grads = torch.autograd.grad(ours, inputs, seeds)
    wanted = torch.autograd.grad(expected, exact, [s.double() for s in seeds])
    for a, b in zip((*ours, *grads), (*expected, *wanted), strict=True):
        assert a.dtype == dtype
        assert_near(a, b)


@pytest.mark.parametrize('outputs, dtype', [
    ('hvi', torch.float32), ('v', torch.float32),
    *(('hvi', dtype) for dtype in DTYPES)])
@pytest.mark.parametrize('case', CASES, ids=IDS)
def test_shift_add(case, outputs, dtype, poison):
    spec, x, weight = make(case)
    y = F.conv2d(x, weight, padding=spec.small_kernel - 1, groups=x.shape[1])
    y = y.to(dtype).requires_grad_()
    exact = y.detach().double().requires_grad_()
    ours = shift_add(y, spec, outputs=tuple(outputs), backend='taichi')
    expected = shift_add(exact, spec, outputs=tuple(outputs),
                         backend='reference')
    seeds = [o.detach() for o in ours]
    grad, = torch.autograd.grad(ours, y, seeds)
    wanted, = torch.autograd.grad(expected, exact,
                                  [s.double() for s in seeds])
    for a, b in zip((*ours, grad), (*expected, wanted), strict=True):
        assert a.dtype == dtype
        assert_near(a, b)


def test_auto_never_takes_the_fused_form(monkeypatch):
    """Nothing was measured on a GPU."""
    monkeypatch.setattr(fused_gpu, 'forward', None)
    spec = ShiftSpec.from_seed(channels=8, large_kernel=13, small_kernel=3)
    x, weight = torch.zeros(2, 8, 128, 128), torch.zeros(40, 1, 3, 3)
    assert len(shiftwise_conv(x, weight, spec)) == 3
    with pytest.raises(TypeError):
        shiftwise_conv(x, weight, spec, form='fused')
