"""The strip form without gradients: a plain convolution, the same results."""
import pytest
import torch

from shiftwise_mm.ops import ShiftSpec
from shiftwise_mm.ops.strips import strip_conv, strip_weights

SPEC = ShiftSpec.from_seed(channels=4, large_kernel=13, small_kernel=3,
                           num_reps=2)


def inputs(*, x_grad=False, weight_grad=False):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 4, 9, 14, generator=generator)
    weight = torch.randn(SPEC.channels * SPEC.num_taps, 1, 3, 3,
                         generator=generator)
    return x.requires_grad_(x_grad), weight.requires_grad_(weight_grad)


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
