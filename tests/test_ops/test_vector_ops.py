"""Products and sums in one instruction, and kernels with and without."""
import platform
import re
import sys

import pytest
import torch
from helpers import ROOT, assert_near
from shiftwise_mm.kernels import runtime, vector_ops
from shiftwise_mm.kernels.capability import sums_take_units_of_products

from shiftwise_mm.ops import ShiftSpec, shiftwise_conv

pytestmark = pytest.mark.skipif(
    platform.machine() not in ('x86_64', 'AMD64'),
    reason='Taichi links functions into kernels for x86 only here')


def forget_kernels():
    """Kernels are compiled anew, and so is what prepares their launches."""
    for name, module in list(sys.modules.items()):
        if name.startswith('shiftwise_mm.kernels.'):
            for kept in vars(module).values():
                if hasattr(kept, 'cache_clear'):
                    kept.cache_clear()


@pytest.fixture
def take(monkeypatch):
    """Chooses CPUs whose sums take the units of products, or others."""
    forget_kernels()
    yield lambda fused: monkeypatch.setattr(
        vector_ops, 'sums_take_units_of_products', lambda: fused)
    forget_kernels()


def test_the_bitcode_has_what_the_text_defines():
    text = (ROOT / 'kernels' / 'vector_ops.ll').read_text()
    names = re.findall(r'^define void @(\w+)', text, re.MULTILINE)
    assert names == ['add_product_8', 'add_product_16']
    held = (ROOT / 'kernels' / 'vector_ops.bc').read_bytes()
    assert all(name.encode() in held for name in names)


@pytest.mark.parametrize('fused', [False, True])
@pytest.mark.parametrize('lanes', [8, 16])
def test_a_fused_product_is_rounded_once(lanes, fused, take):
    take(fused)
    import taichi as ti
    vectors = ti.types.ndarray(dtype=ti.types.vector(lanes, ti.f32), ndim=1)
    x = torch.arange(1, 3 * lanes + 1) / 2**12
    a, b = 1 + x, 1 - x
    total = torch.full_like(a, -1)
    with runtime.launching(torch.device('cpu')):
        mac = vector_ops.add_product(lanes)

        @ti.kernel
        def add_products(total: vectors, a: vectors, b: vectors):
            for i in range(3):
                v = total[i]
                mac(v, a[i], b[i])
                mac(v, 2.0, a[i])
                total[i] = v

        add_products(*(t.view(-1, lanes) for t in (total, a, b)))
    product = -x.double()**2 if fused else a * b - 1
    assert torch.equal(total, (product + 2 * a.double()).float())


@pytest.mark.parametrize('form, small', [('fused', 3), ('channels', 5)])
def test_forms_as_they_are_on_other_cpus(form, small, take, poison):
    take(not sums_take_units_of_products())
    spec = ShiftSpec.from_seed(channels=19, large_kernel=23,
                               small_kernel=small, num_reps=2)
    generator = torch.Generator().manual_seed(small)
    inputs = [torch.randn(*shape, generator=generator) for shape in (
        (2, 19, 24, 20), (19 * spec.num_taps, 1, small, small))]
    exact = [t.double().requires_grad_() for t in inputs]
    expected = shiftwise_conv(*exact, spec, form='shift')
    if form == 'channels':
        with torch.inference_mode():
            ours = shiftwise_conv(*inputs, spec, form=form)
    else:
        inputs = [t.requires_grad_() for t in inputs]
        ours = shiftwise_conv(*inputs, spec, form=form)
        seeds = [torch.randn(t.shape, generator=generator) for t in ours]
        ours = *ours, *torch.autograd.grad(ours, inputs, seeds)
        expected = *expected, *torch.autograd.grad(
            expected, exact, [s.double() for s in seeds])
    for a, b in zip(ours, expected, strict=True):
        assert_near(a, b)
