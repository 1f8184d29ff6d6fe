"""GELU and GRN of a training step against torch in double precision."""
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_near, pretend_cpu
from shiftwise_mm.kernels import gelu_grn_training as kernels
from shiftwise_mm.kernels import memory
from torch.utils.flop_counter import FlopCounterMode

from shiftwise_mm.models.layers.gelu_grn_linear import gelu_grn_linear
from shiftwise_mm.ops import gelu_grn

SHAPES = [(4, 14, 14, 64), (1, 1, 1, 16), (3, 5, 7, 48), (70, 1, 2, 16),
          (1, 61, 9, 32), (2, 3, 5, 24)]
WIDTHS = [8, 16]


def make(shape):
    generator = torch.Generator().manual_seed(sum(shape))
    x, grad = 3 * torch.randn(2, *shape, generator=generator)
    factor, through = torch.randn(2, shape[0], 1, 1, shape[3],
                                  generator=generator)
    beta = torch.randn(1, 1, 1, shape[3], generator=generator)
    return x, grad, factor, through, beta


@pytest.mark.parametrize('width', WIDTHS)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_each_pass(shape, width, poison, monkeypatch):
    monkeypatch.setattr(memory, 'vector_lanes', lambda: width)
    x, grad, factor, through, beta = make(shape)
    exact = x.double().requires_grad_()
    y = F.gelu(exact)
    slope, = torch.autograd.grad(y.sum(), exact)
    y = y.detach()
    for _ in range(2):  # the second in the same memory
        assert_near(kernels.norms(x), y.square().sum(
            (1, 2), keepdim=True).sqrt())
        assert_near(kernels.affine(x, factor, beta),
                    y * factor.double() + beta.double())
        for ours, right in zip(
                kernels.sums(x, grad),
                (grad.double(), grad.double() * y), strict=True):
            right = right.sum((1, 2), keepdim=True)
            assert_near(ours, right, 3e-6)
    given = grad.clone()
    out = kernels.gradient_(x, given, factor, through)
    assert out is given
    assert_near(out, (grad.double() * factor.double() +
                      y * through.double()) * slope)


def test_where_no_vector_starts():
    given = make(SHAPES[0])
    moved = [torch.cat([t.flatten()[:1], t.flatten()])[1:].view(t.shape)
             for t in given]
    outs = []
    for x, grad, factor, through, beta in (given, moved):
        outs.append([kernels.norms(x), kernels.affine(x, factor, beta),
                     *kernels.sums(x, grad),
                     kernels.gradient_(x, grad, factor, through)])
    assert all(map(torch.equal, *outs))


def test_several_threads_at_once():
    given = [make(shape)[:2] for shape in SHAPES[:1] * 4]
    given = [(x + i, grad * i) for i, (x, grad) in enumerate(given)]
    expected = [(kernels.norms(x), *kernels.sums(x, grad))
                for x, grad in given]

    def run(i):
        for _ in range(50):
            x, grad = given[i]
            found = kernels.norms(x), *kernels.sums(x, grad)
            if not all(map(torch.equal, found, expected[i])):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(4)))


def test_the_slope_alone():
    values = torch.cat([torch.linspace(-9, 9, 180_001),
                        torch.tensor([0., -0., 1e4, -1e4, 1e15, -1e15])])
    x = torch.zeros(1, 1, -(-len(values) // 16), 16)
    x.view(-1)[:len(values)] = values
    one = torch.ones(1, 1, 1, 16)
    out = kernels.gradient_(x, torch.ones_like(x), one, torch.zeros_like(one))
    exact = values.double().requires_grad_()
    slope, = torch.autograd.grad(F.gelu(exact).sum(), exact)
    assert (out.view(-1)[:len(values)] - slope).abs().max() < 5e-7
    nan = kernels.gradient_(torch.full_like(x, float('nan')),
                            torch.ones_like(x), one, one)
    assert nan.isnan().all()


def test_results_do_not_depend_on_the_threads():
    x, grad, factor, through, beta = make((2, 31, 8, 80))
    threads = torch.get_num_threads()
    outs = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            outs.append([kernels.norms(x), kernels.affine(x, factor, beta),
                         *kernels.sums(x, grad),
                         kernels.gradient_(x, grad.clone(), factor, through)])
    finally:
        torch.set_num_threads(threads)
    for others in outs[1:]:
        assert all(map(torch.equal, outs[0], others))


@pytest.fixture
def passes(monkeypatch):
    """Layers of any size take the kernels; which they launch."""
    seen = []
    launch = kernels._launch
    monkeypatch.setattr(kernels, '_launch', lambda plan, name, *tensors: (
        seen.append(name), launch(plan, name, *tensors)))
    monkeypatch.setattr(gelu_grn, '_LEAST', 1)
    pretend_cpu(monkeypatch, 'AVX2')
    return seen


def inputs(dtype=torch.float32, channels=32):
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 9, 7, channels), (1, 1, 1, channels), (1, 1, 1, channels),
              (6, channels))
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_()
            for shape in shapes]


def results(given, **options):
    out = gelu_grn_linear(*given, **options)
    seed = torch.linspace(-1, 1, out.numel()).view(out.shape).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, given, seed)]


def test_a_step_has_the_gradients_of_torch(passes, monkeypatch):
    given = inputs()
    ours = results(given, eps=.1)
    assert passes == ['squares', 'affine', 'affine', 'products', 'gradient']
    pretend_cpu(monkeypatch, 'Zen 5')
    torchs = results(given, eps=.1)
    exact = results([t.detach().double().requires_grad_() for t in given],
                    eps=.1)
    assert len(passes) == 5
    for a, b, right in zip(ours, torchs, exact, strict=True):
        assert_near(a, right, 2e-5)
        assert_near(b, right, 2e-5)


def test_a_channel_of_zeros_has_finite_gradients(passes):
    given = inputs()
    with torch.no_grad():
        given[0][..., 3] = 0
    exact = [t.detach().double().requires_grad_() for t in given]
    for ours, right in zip(results(given), results(exact), strict=True):
        assert_near(ours, right, 2e-5)
    assert passes


def test_others_see_torch(passes, monkeypatch):
    given = inputs()
    with FlopCounterMode(display=False):
        results(given)
    with torch.autocast('cpu', torch.bfloat16):
        gelu_grn_linear(*given)
    results(inputs(channels=20))  # no whole vectors
    results(inputs(torch.bfloat16))
    results([given[0].detach().transpose(1, 2).requires_grad_(), *given[1:]])
    compiled = torch.compile(gelu_grn_linear, backend='eager')
    compiled(*given)
    monkeypatch.setattr(gelu_grn, '_LEAST', 10**9)
    results(given)
    assert not passes
