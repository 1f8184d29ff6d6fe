"""The wide half of the unirep block against its plain composition."""
import pytest
import torch
import torch.nn.functional as F
from helpers import assert_near, randomise_norms

from shiftwise_mm.models.layers import GRN
from shiftwise_mm.models.layers.blocks import UniRepBlock
from shiftwise_mm.models.layers.dilated_reparam import DilatedReparamConv2d
from shiftwise_mm.models.layers.gelu_grn_linear import gelu_grn_linear
from shiftwise_mm.models.layers.norm import channel_norms


def inputs(dtype=torch.float64, size=(2, 5, 3)):
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, generator=generator).to(
            dtype).requires_grad_()

    return (random(*size, 8), random(1, 1, 1, 8), random(1, 1, 1, 8),
            random(6, 8))


def plain(x, gamma, beta, weight):
    """As published."""
    x = F.gelu(x)
    norm = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
    norm = norm / (norm.mean(dim=-1, keepdim=True) + 1e-6)
    return F.linear((gamma * norm + 1) * x + beta, weight)


def test_output_and_every_gradient():
    given = inputs()
    out, expected = gelu_grn_linear(*given), plain(*given)
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(out)
    for name, a, b in zip(
            ('x', 'gamma', 'beta', 'weight'),
            torch.autograd.grad(out, given, grad),
            torch.autograd.grad(expected, given, grad), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    assert torch.autograd.gradcheck(gelu_grn_linear, given)


@pytest.mark.parametrize('needs', range(1, 16))
def test_only_what_is_needed(needs):
    given = inputs()
    expected = torch.autograd.grad(plain(*given).sum(), given)
    some = [t.detach().requires_grad_(bool(needs >> i & 1))
            for i, t in enumerate(given)]
    gelu_grn_linear(*some).sum().backward()
    for i, (tensor, right) in enumerate(zip(some, expected, strict=True)):
        if needs >> i & 1:
            torch.testing.assert_close(tensor.grad, right)
        else:
            assert tensor.grad is None


def test_a_channel_of_zeros_has_finite_gradients():
    x, *others = inputs()
    x = x.detach()
    x[..., 3] = 0
    x.requires_grad_()
    got = torch.autograd.grad(gelu_grn_linear(x, *others).sum(), x)[0]
    expected = torch.autograd.grad(plain(x, *others).sum(), x)[0]
    assert got.isfinite().all()
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast(dtype):
    given = inputs(torch.float32, (1, 60, 50))
    expected = plain(*given)
    grads = torch.autograd.grad(expected.sum(), given)
    low = [t.detach().to(dtype).requires_grad_() for t in given]
    out = gelu_grn_linear(*low)
    assert out.dtype == dtype
    found = torch.autograd.grad(out.sum(), low)
    with torch.autocast('cpu', dtype):
        mixed = gelu_grn_linear(low[0], *given[1:])
    assert mixed.dtype == dtype
    mixed_grads = torch.autograd.grad(mixed.sum(), (low[0], *given[1:]))
    assert [g.dtype for g in mixed_grads] == [dtype] + [torch.float32] * 3
    close = dict(rtol=.05, check_dtype=False)
    for results in ((out, *found), (mixed, *mixed_grads)):
        for a, b in zip(results, (expected, *grads), strict=True):
            torch.testing.assert_close(
                a, b, atol=.05 * b.abs().max().item(), **close)


def test_norms_of_large_half_values_are_finite():
    x = torch.full((1, 40, 40, 2), 300.)
    expected = torch.full((1, 1, 1, 2), 12000.)
    torch.testing.assert_close(channel_norms(x.half()), expected)
    torch.testing.assert_close(channel_norms(x), expected)
    torch.testing.assert_close(channel_norms(x.requires_grad_()), expected)
    assert GRN(2)(x.half()).dtype == torch.half


@pytest.mark.parametrize('size', [(2, 40, 41, 200), (1, 1, 1, 1 << 18),
                                  (3, 7, 1, 5), (0, 2, 2, 3), (2, 1, 1, 1)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64,
                                   torch.bfloat16, torch.float16])
def test_norms_of_any_size(size, dtype):
    x = torch.randn(size).to(dtype)
    expected = torch.linalg.vector_norm(x.double(), dim=(1, 2), keepdim=True)
    for images in (x, x.transpose(1, 2)):
        norms = channel_norms(images)
        # Of half precision in float32, and as exact.
        assert norms.dtype == torch.promote_types(dtype, torch.float32)
        assert_near(norms, expected)


def block():
    torch.manual_seed(0)
    mixer = DilatedReparamConv2d(8, 5)
    result = UniRepBlock(8, mixer, mixer_name='dwconv', drop_path_rate=0,
                         layer_scale_init_value=1., norm_cfg=dict(type='BN'),
                         deploy=False)
    with torch.no_grad():
        result.act[1].gamma.normal_()
        result.act[1].beta.normal_()
    randomise_norms(result)
    return result


def test_the_block_keeps_one_wide_tensor():
    saved = []

    def pack(tensor):
        saved.append(tensor)
        return tensor

    layer, x = block(), torch.randn(2, 8, 7, 9, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = layer(x)
    wide = {t.data_ptr() for t in saved if t.numel() == 4 * x.numel()}
    assert len(wide) == 1
    with torch.no_grad():  # batch statistics again, by the modules
        torch.testing.assert_close(layer(x), out)
