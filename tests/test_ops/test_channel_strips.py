"""The kernel of deployed strips whose lanes are channels."""
import pytest
import torch
import torch.nn.functional as F
from helpers import assert_near
from shiftwise_mm.kernels import channel_launch, memory, runtime
from shiftwise_mm.kernels.channel_launch import Strips

# (B, C, H, W, L, N, before): odd sizes, strips longer than the image and on
# one side of the centre, channels that fill no vector.
CASES = [
    (2, 16, 11, 17, 15, 3, 6),
    (1, 17, 9, 6, 51, 3, 25),
    (3, 31, 24, 5, 55, 5, 25),
    (1, 18, 1, 1, 13, 3, 6),
    (2, 40, 3, 70, 5, 5, 2),
    (1, 24, 57, 30, 51, 3, 25),
    (2, 20, 14, 14, 48, 3, 23),
    (1, 16, 8, 8, 3, 3, 0),
    (1, 16, 20, 8, 30, 5, 29),
    (2, 16, 7, 0, 15, 3, 6),
    (0, 16, 7, 9, 15, 3, 6),
]


def make(case):
    b, c, h, w, places, n, _ = case
    generator = torch.Generator().manual_seed(sum(case))
    return [torch.randn(*shape, generator=generator) for shape in (
        (b, c, h, w), (c, 1, n, places), (c, 1, places, n), (c, ))]


def expected(case, x, strip_h, strip_v, bias):
    *_, places, n, before = case
    ends, sides = (before, places - 1 - before), (n // 2, n // 2)
    x, strip_h, strip_v = x.double(), strip_h.double(), strip_v.double()
    return (F.conv2d(F.pad(x, (*ends, *sides)), strip_h, groups=x.shape[1]) +
            F.conv2d(F.pad(x, (*sides, *ends)), strip_v, bias.double(),
                     groups=x.shape[1]))


def run(case, x, strip_h, strip_v, bias):
    return channel_launch.forward(
        x, Strips.of(strip_h, strip_v, case[-1]), bias)


@pytest.mark.parametrize('layout', [torch.contiguous_format,
                                    torch.channels_last])
@pytest.mark.parametrize('case', CASES, ids=str)
def test_strips(case, layout, poison):
    x, *weights = make(case)
    out = run(case, x.contiguous(memory_format=layout), *weights)
    if x.numel():
        assert out.is_contiguous(memory_format=torch.channels_last)
        assert_near(out, expected(case, x, *weights))
    else:
        assert out.shape == x.shape


@pytest.mark.parametrize('case', CASES[1:4], ids=str)
def test_vectors_of_the_other_width(case, poison, monkeypatch):
    other = 24 - memory.vector_lanes()  # 8 or 16
    monkeypatch.setattr(channel_launch, 'vector_lanes', lambda: other)
    tensors = make(case)
    assert_near(run(case, *tensors), expected(case, *tensors))


def test_results_do_not_depend_on_the_threads():
    case = CASES[2]
    tensors = make(case)
    threads = torch.get_num_threads()
    outs = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            outs.append(run(case, *tensors))
    finally:
        torch.set_num_threads(threads)
    for out in outs[1:]:
        assert torch.equal(out, outs[0])


def test_views_that_no_vector_starts_at():
    case = (1, 24, 9, 12, 15, 3, 6)
    x, *weights = make(case)
    store = torch.empty(x.numel() + 1)[1:]
    shifted = store.view(1, 9, 12, 24).permute(0, 3, 1, 2)
    shifted.copy_(x)
    bias = torch.cat([weights[-1][:1], weights[-1]])[1:]
    out = run(case, shifted, *weights[:2], bias)
    assert_near(out, expected(case, x, *weights))


@pytest.mark.parametrize('shape, taps, words', [
    ((1, 16, 8, 8), 7, 'small kernels of 3 and 5, not 7'),
    ((1, 7, 8, 8), 3, 'channels at least, not 7'),
    ((1, 16, 2**13, 2**13), 3, 'indexes at most'),
])
def test_why_it_cannot_run(shape, taps, words):
    x = torch.empty(1).expand(shape)
    assert words in channel_launch.reason(x, taps, 15)


def test_it_can_run():
    x = torch.empty(1, 16, 8, 8)
    assert channel_launch.reason(x, 3, 15) == runtime.vector_reason(x.device)
