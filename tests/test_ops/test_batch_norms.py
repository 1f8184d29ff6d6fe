"""Batch-norms that are added up against torch's in double precision."""
import copy

import pytest
import torch
import torch.nn as nn
from helpers import assert_near, pretend_cpu, randomise_norms
from shiftwise_mm.kernels import batch_norms as kernels
from torch.utils.flop_counter import FlopCounterMode

from shiftwise_mm.models import ShiftWiseConv2d
from shiftwise_mm.models.layers.normed_sum import add_normed
from shiftwise_mm.ops import batch_norms

# Planes of whole vectors of 16, 8 and 4 places; one image, one channel.
SHAPES = [(3, 5, 8, 10), (2, 7, 6, 4), (4, 9, 14, 14), (1, 3, 1, 4),
          (5, 1, 6, 6), (2, 40, 12, 20)]
every_shape = pytest.mark.parametrize('shape', SHAPES, ids=str)


@pytest.fixture(autouse=True)
def launches(monkeypatch):
    """Any size takes the kernels; which are launched."""
    seen = []
    for name in ('forward', 'backward'):
        def spy(*args, name=name, run=getattr(kernels, name)):
            seen.append(name)
            return run(*args)

        monkeypatch.setattr(kernels, name, spy)
    monkeypatch.setattr(batch_norms, '_LEAST', 1)
    pretend_cpu(monkeypatch, 'AVX2')
    return seen


def norms_of(channels):
    norms = nn.ModuleList(
        nn.BatchNorm2d(channels, eps=eps, momentum=momentum)
        for eps, momentum in ((1e-5, .1), (1e-3, .3), (.5, 1.)))
    randomise_norms(norms)
    return norms.train()


def inputs(shape, offset=0.):
    generator = torch.Generator().manual_seed(sum(shape))
    return [(offset + (1 + s) * torch.randn(shape, generator=generator)
             ).requires_grad_() for s in range(4)]


def results(norms, base, *ys):
    out = add_normed(base, ys, norms)
    seed = torch.linspace(-.7, 1, out.numel()).view(out.shape).to(out.dtype)
    wanted = [t for t in (base, *ys, *norms.parameters()) if t.requires_grad]
    return [out.detach(), *torch.autograd.grad(out, wanted, seed ** 3),
            *(b.clone().to(out.dtype) for b in norms.buffers())]


def doubled(norms, given):
    return [copy.deepcopy(norms).double(),
            *(t.detach().double().requires_grad_(t.requires_grad)
              for t in given)]


def assert_as_in_double(norms, given, tolerance=1e-5):
    exact = results(*doubled(norms, given))
    for a, b in zip(results(norms, *given), exact, strict=True):
        assert_near(a, b, tolerance)


@every_shape
def test_output_gradients_and_running_statistics(shape, launches, poison):
    norms, given = norms_of(shape[1]), inputs(shape)
    exact = doubled(norms, given)
    for step in range(2):
        ours, right = results(norms, *given), results(*exact)
        assert launches == ['forward', 'backward'] * (step + 1)
        for a, b in zip(ours, right, strict=True):
            assert_near(a, b, 1e-5)


def test_means_far_from_zero(launches):
    """The variance is not a difference of two large numbers."""
    norms, given = norms_of(5), inputs((3, 5, 8, 10), 1000.)
    assert_as_in_double(norms, given, 2e-4)
    assert launches == ['forward', 'backward']


def test_only_what_is_needed_has_gradients(launches):
    norms, given = norms_of(5), inputs((3, 5, 8, 10))
    given[0].requires_grad_(False)
    given[2].requires_grad_(False)
    norms[1].requires_grad_(False)
    assert_as_in_double(norms, given)
    assert launches == ['forward', 'backward']


def test_gradients_of_gradients(launches):
    norms, given = norms_of(5), inputs((3, 5, 8, 10))
    given[2].requires_grad_(False)
    found = []
    for own, base, *ys in ([norms, *given], doubled(norms, given)):
        wanted = [base, ys[0], ys[2], own[0].weight, own[2].bias]
        out = add_normed(base, ys, own)
        first = torch.autograd.grad(out.pow(3).sum(), wanted,
                                    create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first),
                                     wanted)
        found.append([*first, *second])
    # In the second pass through the sum itself.
    assert launches == ['forward', 'backward']
    for a, b in zip(*found, strict=True):
        assert_near(a, b, 1e-4)


def test_results_do_not_depend_on_the_threads():
    given, threads, outs = inputs((4, 37, 14, 14)), torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            outs.append(results(norms_of(37), *given))
    finally:
        torch.set_num_threads(threads)
    for others in outs[1:]:
        assert all(map(torch.equal, outs[0], others))


def evaluated(norms):
    norms[1].eval()


def without_statistics(norms):
    norms[1] = nn.BatchNorm2d(5, track_running_stats=False)


def cumulative(norms):
    norms[1].momentum = None


def plain(norms):
    norms[1] = nn.BatchNorm2d(5, affine=False)


def of_another_kind(norms):
    norms[1] = nn.GroupNorm(1, 5)


def hooked(norms):
    norms[1].register_forward_hook(lambda module, given, out: out * 2)


@pytest.mark.parametrize('change', [
    evaluated, without_statistics, cumulative, plain, of_another_kind, hooked],
    ids=lambda change: change.__name__)
def test_other_norms_are_called(change, launches):
    norms, given = norms_of(5), inputs((3, 5, 8, 10))
    change(norms)
    assert_as_in_double(norms, given)
    assert not launches


def test_others_see_torch(launches, monkeypatch):
    norms, given = norms_of(5), inputs((3, 5, 8, 10))
    with FlopCounterMode(display=False):
        add_normed(given[0], given[1:], norms)
    with torch.autocast('cpu', torch.bfloat16):
        add_normed(given[0], given[1:], norms)
    torch.compile(add_normed, backend='eager')(given[0], given[1:], norms)
    results(*doubled(norms, given))
    results(norms, *(t[:, :, 1:].detach().requires_grad_() for t in given))
    results(norms, *(t.detach().contiguous(memory_format=torch.channels_last)
                     .requires_grad_() for t in given))
    odd = [t.detach().requires_grad_() for t in inputs((3, 5, 7, 9))]
    results(norms, *odd)
    pretend_cpu(monkeypatch, 'Zen 5')
    results(norms, *given)
    pretend_cpu(monkeypatch, 'AVX512')
    monkeypatch.setattr(batch_norms, '_LEAST', given[0].numel() + 1)
    results(norms, *given)
    assert not launches


@pytest.mark.parametrize('change', [
    lambda x: x.contiguous(memory_format=torch.channels_last),
    lambda x: torch.cat([x.flatten()[:1], x.flatten()])[1:].view(x.shape)])
def test_any_base_and_gradient(change, launches):
    shape = (3, 5, 8, 10)
    norms, (base, *ys) = norms_of(5), inputs(shape)
    seed = torch.randn(shape)
    outs = []
    for other in (lambda x: x, change):
        given = other(base.detach()).requires_grad_()
        out = add_normed(given, ys, norms)
        outs.append([out, *torch.autograd.grad(out, [given, *ys],
                                               other(seed))])
    assert launches == ['forward', 'backward'] * 2
    assert all(map(torch.equal, *outs))


@pytest.mark.parametrize('ghost_ratio', [0., .4])
@pytest.mark.parametrize('layout', [torch.contiguous_format,
                                    torch.channels_last])
def test_a_layer_in_training(ghost_ratio, layout, launches):
    torch.manual_seed(0)
    layer = ShiftWiseConv2d(10, kernel_size=13, ghost_ratio=ghost_ratio,
                            form='fused')
    randomise_norms(layer)
    exact = copy.deepcopy(layer).double()
    exact.form = 'strip'
    x = torch.randn(2, 10, 12, 14).contiguous(memory_format=layout)
    seed = torch.randn(2, 10, 12, 14)
    outs = []
    for one, given in ((layer, x), (exact, x.double())):
        given = given.requires_grad_()
        out = one.train()(given)
        outs.append([out, *torch.autograd.grad(
            out, [given, *one.parameters()], seed.to(out.dtype)),
            *one.buffers()])
    assert launches == ['forward', 'backward']
    for a, b in zip(*outs, strict=True):
        assert_near(a, b, 1e-4)
    with torch.no_grad():
        layer.eval()(x)
    assert launches == ['forward', 'backward']
