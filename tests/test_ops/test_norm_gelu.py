"""Layer norm and GELU in one launch against torch in double precision."""
import re

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_near, pretend_cpu, record_launches
from shiftwise_mm.kernels import memory
from shiftwise_mm.kernels import norm_gelu as kernels
from torch.utils.flop_counter import FlopCounterMode

from shiftwise_mm.models.layers.conv_stem import ConvStem
from shiftwise_mm.models.layers.norm import LayerNorm2d
from shiftwise_mm.ops import norm_gelu

# More places than a block of a task, fewer, and tasks with none.
SHAPES = [(4, 64, 14, 14), (1, 16, 1, 1), (3, 48, 5, 7), (2, 16, 61, 23),
          (1, 80, 31, 33), (2, 40, 6, 5)]


def make(shape):
    generator = torch.Generator().manual_seed(sum(shape))
    x = 5 + 3 * torch.randn(shape, generator=generator)
    weight, bias = torch.randn(2, shape[1], generator=generator)
    return x.contiguous(memory_format=torch.channels_last), weight, bias


def expected(x, weight, bias, eps):
    y = F.layer_norm(x.double().permute(0, 2, 3, 1), weight.shape,
                     weight.double(), bias.double(), eps)
    return F.gelu(y).permute(0, 3, 1, 2)


@pytest.mark.parametrize('width', [8, 16])
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_against_double_precision(shape, width, poison, monkeypatch):
    monkeypatch.setattr(memory, 'vector_lanes', lambda: width)
    for eps in (1e-6, 3.):
        x, weight, bias = make(shape)
        given = x.clone()
        out = kernels.norm_gelu_(given, weight, bias, eps)
        assert out is given
        assert_near(out, expected(x, weight, bias, eps))
    again = kernels.norm_gelu_(2 * x, -weight, bias, eps)
    assert_near(again, expected(2 * x, -weight, bias, eps))


def test_results_do_not_depend_on_the_threads():
    x, *affine = make((2, 80, 31, 8))
    threads = torch.get_num_threads()
    outs = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            outs.append(kernels.norm_gelu_(x.clone(), *affine, 1e-6))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(outs[0], outs[1]) and torch.equal(outs[0], outs[2])


def test_parameters_where_no_vector_starts():
    x, *affine = make(SHAPES[0])
    moved = [torch.cat([t[:1], t])[1:] for t in affine]
    assert_near(kernels.norm_gelu_(x.clone(), *moved, 1e-6),
                expected(x, *affine, 1e-6))


@pytest.mark.parametrize('shape, words', [
    ((1, 20, 3, 3), 'multiples of .* channels, not 20'),
    ((0, 16, 3, 3), 'elements, not 0')])
def test_why_it_cannot_run(shape, words):
    x = torch.empty(shape).contiguous(memory_format=torch.channels_last)
    assert re.search(words, kernels.reason(x))
    x = torch.empty(2, memory.vector_lanes(), 3, 3)
    assert re.search('takes channels_last', kernels.reason(x))
    x = x.contiguous(memory_format=torch.channels_last)
    assert kernels.reason(x) is None
    store = torch.empty(x.numel() + 1)[1:].as_strided(x.shape, x.stride())
    assert re.search('address of a vector', kernels.reason(store))


@pytest.fixture
def launches(monkeypatch):
    """Stems of any size take the kernel; the shapes that it was given."""
    return record_launches(monkeypatch, norm_gelu, 'norm_gelu_')


def stem(stride=4):
    torch.manual_seed(0)
    made = ConvStem(3, 64, stride)
    for module in made:
        if isinstance(module, LayerNorm2d):
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
    return made.to(memory_format=torch.channels_last)


def as_torch(made, x):
    for module in made.double():
        x = module(x)
    made.float()
    return x


@pytest.mark.parametrize('stride', [2, 4])
def test_stems_take_it(stride, launches):
    made, x = stem(stride), torch.randn(2, 3, 37, 30)
    given = x.clone()
    wanted = as_torch(made, x.double())
    with torch.no_grad():
        out = made(x)
    assert launches == [(2, 32, 19, 15)]
    assert torch.equal(x, given)
    assert_near(out, wanted, 1e-5)
    out = made(x)  # with gradients
    assert len(launches) == 1
    assert_near(out, wanted, 1e-5)
    assert out.requires_grad


def test_who_looks_or_differentiates_sees_torch(launches, monkeypatch):
    made, x = stem(), torch.randn(1, 3, 32, 32)
    made(x)
    with torch.no_grad():
        with FlopCounterMode(display=False):
            made(x)
        with torch.autocast('cpu', torch.bfloat16):
            made(x)
        torch.jit.trace(made, x, check_trace=False)
        as_torch(made, x.double())
        made[1] = torch.nn.BatchNorm2d(32).eval()
        made(x)
        for other in torch.nn.ReLU(), torch.nn.GELU('tanh'):
            made = stem()
            made[2] = other
            assert_near(made(x), as_torch(made, x.double()), 1e-5)
        made = stem()
        pretend_cpu(monkeypatch, 'Zen 5')
        made(x)
    assert not launches


def test_small_ones_are_left_to_torch(monkeypatch):
    pretend_cpu(monkeypatch, 'AVX2')
    with torch.no_grad():
        for side, worth in ((100, False), (200, True)):
            x = torch.empty(1, 16, side, side).contiguous(
                memory_format=torch.channels_last)
            assert norm_gelu.norm_gelu_is_faster(x) is worth
