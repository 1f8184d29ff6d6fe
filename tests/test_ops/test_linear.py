"""The product by either library against torch's."""
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from helpers import assert_near, pretend_cpu
from torch.utils.flop_counter import FlopCounterMode

from shiftwise_mm.models.layers.pointwise_linear import PointwiseLinear
from shiftwise_mm.ops.linear import (
    linear,
    linear_onto,
    product,
    product_over_rows,
    stored_for_inference,
)


@pytest.fixture(autouse=True, params=['AVX2', 'AVX512', 'Zen 4'])
def vectors(request, monkeypatch):
    """Of the CPU, which decide on the library."""
    pretend_cpu(monkeypatch, request.param)
    return request.param


def test_the_library_is_that_of_the_cpu(vectors):
    x, weight, _ = (t.detach() for t in inputs())
    for function, by_onednn in ((linear, ('AVX512', 'Zen 4')),
                                (product, ('Zen 4', ))):
        with FlopCounterMode(display=False) as counter:
            function(x, weight)
        ours = torch.ops.shiftwise_mm.linear
        assert (ours in counter.flop_counts['Global']) == (
            vectors in by_onednn)


def inputs(shape=(2, 3, 5, 7), out=6, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=generator).to(dtype).requires_grad_()
            for s in (shape, (out, shape[-1]), (out, ))]


@pytest.mark.parametrize('shape', [(7, ), (3, 7), (2, 3, 5, 7), (0, 7),
                                   (1, 64, 49, 96)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_output_and_every_gradient(shape, dtype):
    given = inputs(shape, dtype=dtype)
    exact = [t.double() for t in given]
    for bias in (True, False):
        args, right = given[:2 + bias], exact[:2 + bias]
        out, expected = linear(*args), F.linear(*right)
        assert_near(out, expected)
        grad = torch.randn_like(out)
        for a, b in zip(torch.autograd.grad(out, args, grad),
                        torch.autograd.grad(expected, args, grad.double()),
                        strict=True):
            assert_near(a, b)


@pytest.mark.parametrize('change', [
    lambda x: x.transpose(1, 2), lambda x: x[:, ::2], lambda x: x.flip(0),
    lambda x: x[:1].expand(2, -1, -1, -1),
    lambda x: x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)])
def test_any_strides(change):
    x, weight, bias = inputs()
    given = change(x)
    wide = weight.detach().t().contiguous().t()
    assert_near(linear(given, wide, bias), F.linear(given, weight, bias))
    assert_near(product(weight, x.flatten(0, 2)),
                weight @ x.flatten(0, 2).t())


def test_gelu():
    given = inputs()
    expected = F.gelu(F.linear(*given))
    assert_near(linear(*given, gelu=True), expected)
    assert linear(*given, gelu=True).requires_grad
    with torch.no_grad():
        assert_near(linear(*given, gelu=True), expected)
    double = [t.double() for t in given]
    assert_near(linear(*double, gelu=True), F.gelu(F.linear(*double)))


def test_gradients_of_gradients():
    given = inputs((2, 5))
    second = []
    for function in (linear, F.linear):
        grad, = torch.autograd.grad(function(*given).square().sum(), given[0],
                                    create_graph=True)
        second.append(torch.autograd.grad(grad.square().sum(), given[1])[0])
    assert_near(*second)


def test_the_operator_is_what_torch_expects():
    x, weight, bias = (t.detach() for t in inputs())
    op = torch.ops.shiftwise_mm.linear
    for args in ((x, weight, bias, False), (x, weight, None, True)):
        torch.library.opcheck(op, args)
    for t in (x, weight, bias):
        t.requires_grad_()
    torch.library.opcheck(op, (x, weight, bias, False))


def test_counters_autocast_and_traces_see_a_linear_layer():
    x, weight, bias = inputs()
    with FlopCounterMode(display=False) as counter:
        linear(x, weight, bias).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * x.numel() * len(weight)
    with torch.autocast('cpu', torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16
    layer = PointwiseLinear(7, 6)
    assert isinstance(layer, nn.Linear)
    trace = torch.jit.trace(layer, x)
    assert 'aten::linear' in str(trace.inlined_graph)
    exported = torch.export.export(layer, (x.detach(), ))
    assert 'aten.linear' in str(exported.graph)
    with torch.backends.mkldnn.flags(enabled=False):
        assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))


@pytest.mark.parametrize('change', [
    lambda t: t, lambda t: t.transpose(1, 2), lambda t: t[:, ::2],
    lambda t: t.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_onto_something_that_stays(change, dtype):
    x, weight, bias = inputs(dtype=dtype)
    x = change(x.detach())
    base = change(torch.randn(2, 3, 5, 6, dtype=dtype))
    before = base.clone()
    expected = base.double() + F.linear(x.double(), weight.double(),
                                        bias.double())
    with torch.no_grad():
        assert_near(linear_onto(base, x, weight, bias), expected)
    assert torch.equal(base, before)
    out = linear_onto(base, x, weight, bias)
    assert out.requires_grad
    assert_near(out, expected)


@torch.no_grad()
def test_counters_see_what_is_summed_onto_something():
    x, weight, bias = inputs()
    counts = []
    for function in (lambda: linear_onto(torch.zeros(2, 3, 5, 6), x, weight,
                                         bias),
                     lambda: F.linear(x, weight, bias)):
        with FlopCounterMode(display=False) as counter:
            function()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize('vectors', ['AVX2', 'AVX512', 'Zen 5'],
                         indirect=True)
@pytest.mark.parametrize('rows, p, q', [(300, 5, 7), (300, 7, 5), (6, 9, 8),
                                        (6, 8, 9), (0, 3, 2)])
def test_weight_gradients(rows, p, q, vectors):
    a, b = torch.randn(rows, p), torch.randn(rows, q)
    for x, y in ((a, b), (a.t().contiguous().t(), b.t().contiguous().t())):
        assert_near(product_over_rows(x, y), x.double().t() @ y.double())
    with FlopCounterMode(display=False) as counter:
        product_over_rows(a, b)
    assert counter.get_total_flops() == 2 * rows * p * q
    by_onednn = (torch.ops.shiftwise_mm.linear
                 in counter.flop_counts['Global'])
    assert by_onednn == (vectors == 'Zen 5' and rows > 0)


def test_the_operator_of_sums_is_what_torch_expects():
    x, weight, bias = (t.detach() for t in inputs())
    base = torch.randn(2, 3, 5, 6)
    torch.library.opcheck(torch.ops.shiftwise_mm.linear_onto,
                          (base, x, weight, bias),
                          test_utils=('test_schema', 'test_faketensor'))


def test_weights_as_libraries_read_them(vectors):
    x, weight, bias = (t.detach() for t in inputs())
    stored = stored_for_inference(weight)
    assert torch.equal(stored, weight)
    assert stored.t().is_contiguous() == (vectors != 'AVX2')
    assert_near(linear(x, stored, bias), F.linear(x, weight, bias))
    elsewhere = weight.to('meta')
    assert stored_for_inference(elsewhere) is elsewhere
