"""The strip form without gradients: a plain convolution, the same results."""
import pytest
import torch
import torch.nn.functional as F
from helpers import assert_near, pretend_cpu

from shiftwise_mm.ops import (
    ShiftSpec,
    kept_strips,
    shift_add,
    shiftwise_conv,
)
from shiftwise_mm.ops.strips import strip_conv, strip_pair_conv, strip_weights

SPEC = ShiftSpec.from_seed(channels=4, large_kernel=13, small_kernel=3,
                           num_reps=2)


def inputs(*, x_grad=False, weight_grad=False):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 9, 14, generator=generator)
    weight = torch.randn(SPEC.channels * SPEC.num_taps, 1, 3, 3,
                         generator=generator)
    return x.requires_grad_(x_grad), weight.requires_grad_(weight_grad)


def random(*shape, seed=0):
    return torch.randn(shape,
                       generator=torch.Generator().manual_seed(seed))


def reference(x, weight, spec, outputs):
    y = F.conv2d(x, weight.detach(), padding=spec.small_kernel - 1,
                 groups=x.shape[1])
    return shift_add(y, spec, outputs=outputs, backend='reference')


def run(x, weight, name):
    return strip_conv(x, strip_weights(weight, SPEC, name), SPEC, name)


@pytest.mark.parametrize('name', ['h', 'v', 'i'])
def test_the_same_bits_with_and_without_gradients(name):
    expected = run(*inputs(x_grad=True, weight_grad=True), name)
    assert expected.requires_grad
    assert torch.equal(run(*inputs(), name), expected)
    with torch.no_grad():
        out = run(*inputs(x_grad=True, weight_grad=True), name)
    assert torch.equal(out, expected)


@pytest.mark.parametrize('name', ['h', 'v'])
@pytest.mark.parametrize('grads', [dict(x_grad=True), dict(weight_grad=True)],
                         ids=str)
def test_gradients_keep_their_own_path(name, grads):
    """The weight gradient of torch 2.13 is not to be trusted."""
    out = run(*inputs(**grads), name)
    nodes, names = [out.grad_fn], set()
    while nodes:
        node = nodes.pop()
        names.add(type(node).__name__)
        nodes += [n for n, _ in node.next_functions if n is not None]
    assert '_TallConvBackward' in names
    assert 'ConvolutionBackward0' not in names


@pytest.mark.parametrize('name', ['h', 'v', 'i'])
def test_a_trace_sees_a_convolution(name):
    x, weight = inputs(x_grad=True)
    with torch.no_grad():
        graph = torch.jit.trace(lambda t: run(t, weight, name), x).graph
    kinds = [node.kind() for node in graph.nodes()]
    assert kinds.count('aten::_convolution') == 1
    assert 'prim::PythonOp' not in kinds


@pytest.mark.parametrize('size', [(5, 14), (40, 9), (7, 7)])
def test_small_images_in_any_layout_and_mode(size):
    """Kernels that are cropped to the image give what whole ones give."""
    spec = ShiftSpec.from_seed(channels=3, large_kernel=47, small_kernel=3)
    x = random(2, 3, *size)
    weight = random(3 * spec.num_taps, 1, 3, 3, seed=1)
    expected = reference(x, weight, spec, ('h', 'v', 'i'))
    for layout in (torch.contiguous_format, torch.channels_last):
        for grad in (True, False):
            with torch.set_grad_enabled(grad):
                given = x.contiguous(memory_format=layout)
                ours = shiftwise_conv(given, weight, spec, form='strip')
            for a, b in zip(ours, expected, strict=True):
                assert_near(a, b)


@pytest.mark.parametrize('vectors', ['AVX2', 'AVX512'])
@pytest.mark.parametrize('n, size', [(3, (12, 13)), (3, (30, 5)), (5, (7, 9)),
                                     (5, (26, 27))])
def test_inference_in_the_layout_of_any_cpu(monkeypatch, n, size, vectors):
    pretend_cpu(monkeypatch, vectors)
    spec = ShiftSpec.from_seed(channels=3, large_kernel=23, small_kernel=n)
    weight = random(3 * spec.num_taps, 1, n, n, seed=1)
    bias = random(3, seed=2)
    kernels = [strip_weights(weight, spec, name) for name in 'hv']
    for layout in (torch.contiguous_format, torch.channels_last):
        for dtype in (torch.float32, torch.float64):
            x = random(2, 3, *size).to(dtype).contiguous(memory_format=layout)
            expected = reference(x, weight.to(dtype), spec, ('h', 'v'))
            with torch.no_grad():
                ours = shiftwise_conv(x, weight.to(dtype), spec, form='strip',
                                      outputs=('h', 'v'))
                pair = strip_pair_conv(x, *(t.to(dtype) for t in (
                    *kernels, bias)), spec)
            for a, b in zip(ours, expected, strict=True):
                assert_near(a, b)
            assert_near(pair, sum(expected) + bias.to(dtype).view(-1, 1, 1))
            assert pair.is_contiguous(memory_format=torch.channels_last)


def test_inference_puts_strips_together_once(monkeypatch):
    made = []
    build = kept_strips.strip_weights
    monkeypatch.setattr(
        kept_strips, 'strip_weights',
        lambda *args: made.append(args[-1]) or build(*args))
    spec = ShiftSpec.from_seed(channels=3, large_kernel=13, small_kernel=3)
    x, weight = random(2, 3, 9, 8), random(15, 1, 3, 3, seed=1)
    mask = torch.arange(15) % 2 == 0

    def check(weight, mask=None, outputs=('h', 'v')):
        """What was made for it; the result must be right in any case."""
        count = len(made)
        ours = shiftwise_conv(x, weight, spec, outputs=outputs, form='strip',
                              mask=mask)
        kept = weight if mask is None else weight * mask.view(-1, 1, 1, 1)
        for a, b in zip(ours, reference(x, kept, spec, outputs),
                        strict=True):
            assert_near(a, b)
        return ''.join(made[count:])

    with torch.no_grad():
        assert check(weight) == 'hv' and check(weight) == ''
        assert check(weight, outputs=('v', 'i')) == 'i'
        assert check(weight, mask) == 'hv' and check(weight, mask) == ''
        mask[0] = False
        assert check(weight, mask) == 'hv'
        weight.data[3, 0, 1, 1] += 1  # changes no version
        assert check(weight) == 'hv' and check(weight, mask) == 'hv'
        with torch.inference_mode():
            assert check(weight) == '' and check(weight * 2) == 'hv'
    weight.requires_grad_()
    assert check(weight) == 'hv' and check(weight) == 'hv'  # in training


def test_kept_strips_fit_images_of_every_size():
    spec = ShiftSpec.from_seed(channels=2, large_kernel=13, small_kernel=3)
    weight = random(2 * spec.num_taps, 1, 3, 3, seed=1)
    for size in (40, 40), (3, 9), (9, 3), (1, 40), (40, 40):
        x = random(1, 2, *size)
        expected = shiftwise_conv(x, weight, spec, form='strip')
        with torch.no_grad():
            ours = shiftwise_conv(x, weight, spec, form='strip')
        for a, b in zip(ours, expected, strict=True):
            assert_near(a, b)


def test_kept_strips_do_not_grow():
    spec = ShiftSpec.from_seed(channels=3, large_kernel=13, small_kernel=3)
    with torch.no_grad():
        for seed in range(9):
            shiftwise_conv(random(2, 3, 9, 8), random(15, 1, 3, 3, seed=seed),
                           spec, form='strip')
    assert len(spec.cached('strips', list)) == 4
