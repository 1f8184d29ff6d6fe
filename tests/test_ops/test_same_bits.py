"""Tensors that hold the same."""
import pytest
import torch

from shiftwise_mm.ops import same_bits as module
from shiftwise_mm.ops.same_bits import same_bits


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64,
                                   torch.float16, torch.int8])
@pytest.mark.parametrize('fast', [True, False])
def test_every_element_counts(dtype, fast, monkeypatch):
    if not fast:
        monkeypatch.setattr(module, '_memcmp', lambda: None)
    a = torch.arange(1, 31).to(dtype).view(5, 1, 2, 3)
    for given in (a, a[1:], a.transpose(2, 3), a[:, :, :, ::2], a[:0]):
        assert same_bits(given, given.clone())
        for i in range(given.numel()):
            other = given.clone(memory_format=torch.contiguous_format)
            other.view(-1)[i] += 1
            assert not same_bits(given, other)
            assert not same_bits(other, given)


def test_shape_and_dtype_count():
    a = torch.zeros(2, 3)
    for other in (a[:1], a.t(), a.view(-1), a.double(), a.int()):
        assert not same_bits(a, other)


def test_nan_is_itself():
    a = torch.tensor([1, float('nan')])
    assert same_bits(a, a.clone())
