"""GELU and GRN in one launch against torch in double precision."""
import re

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_near, pretend_cpu, record_launches
from shiftwise_mm.kernels import gelu_grn as kernels
from shiftwise_mm.kernels import memory
from torch.utils.flop_counter import FlopCounterMode

from shiftwise_mm.models.layers import blocks
from shiftwise_mm.models.layers.norm import GRN
from shiftwise_mm.ops import gelu_grn
from shiftwise_mm.registry import MODELS

SHAPES = [(4, 14, 14, 64), (1, 1, 1, 16), (3, 5, 7, 48), (70, 1, 2, 16),
          (1, 61, 9, 32), (2, 3, 5, 24)]


def make(shape):
    generator = torch.Generator().manual_seed(sum(shape))
    x = 3 * torch.randn(shape, generator=generator)
    return x, *torch.randn(2, shape[-1], generator=generator)


def expected(x, bias, gamma, eps):
    y = F.gelu(x.double() + bias.double())
    norm = y.square().sum((1, 2), keepdim=True).sqrt()
    return y * (1 + gamma.double() * norm / (norm.mean(-1, keepdim=True) +
                                             eps))


@pytest.mark.parametrize('width', [8, 16])
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_against_double_precision(shape, width, poison, monkeypatch):
    monkeypatch.setattr(memory, 'vector_lanes', lambda: width)
    for eps in (1e-6, 3.):
        x, bias, gamma = make(shape)
        out = kernels.gelu_grn_(x.clone(), bias, gamma, eps)
        assert_near(out, expected(x, bias, gamma, eps))
    again = kernels.gelu_grn_(2 * x, -bias, -gamma, eps)
    assert_near(again, expected(2 * x, -bias, -gamma, eps))


@pytest.mark.parametrize('patience', [0, 1])
def test_what_is_put_off_is_done(patience, poison, monkeypatch):
    monkeypatch.setattr(kernels, 'PATIENCE', patience)
    kernels._kernel.cache_clear()
    try:
        for shape in SHAPES:
            x, *weights = make(shape)
            for _ in range(3):
                assert_near(kernels.gelu_grn_(x.clone(), *weights, 1e-6),
                            expected(x, *weights, 1e-6))
    finally:
        kernels._kernel.cache_clear()


def test_gelu_alone():
    values = torch.cat([torch.linspace(-9, 9, 180_001),
                        torch.tensor([0., -0., 1e4, -1e4, 1e15, -1e15])])
    x = torch.zeros(1, 1, -(-len(values) // 16), 16)
    x.view(-1)[:len(values)] = values
    zeros = torch.zeros(2, 16)
    out = kernels.gelu_grn_(x.clone(), *zeros, 1e-6).view(-1)
    wanted = F.gelu(values.double())
    error = (out[:len(values)].double() - wanted).abs()
    assert (error <= 4e-7 * values.abs().clamp(min=1)).all()
    nan = kernels.gelu_grn_(torch.full((1, 1, 1, 16), float('nan')), *zeros,
                            1e-6)
    assert nan.isnan().all()


def test_results_do_not_depend_on_the_threads():
    x, *weights = make((2, 31, 8, 80))
    threads = torch.get_num_threads()
    outs = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            outs.append(kernels.gelu_grn_(x.clone(), *weights, 1e-6))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(outs[0], outs[1]) and torch.equal(outs[0], outs[2])


def test_weights_where_no_vector_starts():
    x, *weights = make(SHAPES[0])
    moved = [torch.cat([w[:1], w])[1:] for w in weights]
    assert_near(kernels.gelu_grn_(x.clone(), *moved, 1e-6),
                expected(x, *weights, 1e-6))


@pytest.mark.parametrize('elements, channels, words', [
    (160, 20, 'multiples of .* channels, not 20'), (0, 16, 'elements, not 0'),
    (2**31, 16, 'elements, not 2147483648')])
def test_why_it_cannot_run(elements, channels, words):
    device = torch.device('cpu')
    assert re.search(words, kernels.reason(elements, channels, device))
    assert kernels.reason(160, memory.vector_lanes(), device) is None


@pytest.fixture
def launches(monkeypatch):
    """Blocks of any size take the kernel; the shapes that it was given."""
    return record_launches(monkeypatch, gelu_grn, 'gelu_grn_')


def network():
    torch.manual_seed(0)
    net = MODELS.build(dict(type='shiftwise_mm.ShiftWiseNet', arch='nano',
                            out_indices=(0, 1, 2, 3)))
    for module in net.modules():
        if isinstance(module, GRN):
            torch.nn.init.normal_(module.gamma)
            torch.nn.init.normal_(module.beta)
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(.5, 2)
    net.eval().switch_to_deploy()
    return net


def test_deployed_networks_take_it(launches):
    net, x = network(), torch.randn(2, 3, 64, 96)
    wanted = net.double()(x.double())
    net.float()
    with torch.no_grad():
        outs = net(x)
    assert launches
    for out, reference in zip(outs, wanted, strict=True):
        assert_near(out, reference, 1e-4)


def test_blocks_without_a_bias_are_left_to_torch(launches):
    net, x = network(), torch.randn(2, 3, 64, 96)
    for module in net.modules():
        if isinstance(module, blocks.UniRepBlock):
            module.pwconv1[1].bias = None
    wanted = net.double()(x.double())
    net.float()
    with torch.no_grad():
        for _ in range(2):  # the second as a call like an earlier one
            for out, reference in zip(net(x), wanted, strict=True):
                assert_near(out, reference, 1e-4)
    assert not launches


def test_who_looks_or_differentiates_sees_torch(launches):
    net, x = network(), torch.randn(1, 3, 64, 64)
    net(x)
    with torch.no_grad():
        with FlopCounterMode(display=False):
            net(x)
        with torch.autocast('cpu', torch.bfloat16):
            net(x)
        torch.jit.trace(net, x, check_trace=False)
        net.double()(x.double())
    assert not launches


@pytest.mark.parametrize('vectors', ['Zen 5', 'AVX512'])
def test_not_on_zen5(launches, monkeypatch, vectors):
    pretend_cpu(monkeypatch, vectors)
    with torch.no_grad():
        network()(torch.randn(1, 3, 64, 64))
    assert bool(launches) == (vectors == 'AVX512')


def test_small_ones_are_left_to_torch(monkeypatch):
    pretend_cpu(monkeypatch, 'AVX2')
    with torch.no_grad():
        for side, worth in ((10, False), (100, True)):
            x = torch.empty(1, 1, 1, 16).expand(1, side, side, 16)
            assert blocks.gelu_grn_is_faster(x, 64) is worth
