"""The kernels of strips whose lanes are channels, and form ``channels``."""
import re

import pytest
import torch
import torch.nn.functional as F
from helpers import assert_near, pretend_cpu, record_forms
from shiftwise_mm.kernels import channel_launch, memory
from shiftwise_mm.kernels.channel_launch import Excitation, Strips
from torch.utils.flop_counter import FlopCounterMode

from shiftwise_mm.ops import (
    ShiftSpec,
    available_forms,
    shiftwise_conv,
)

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
    return channel_launch.Deployed(
        x.shape, Strips.of(strip_h, strip_v, case[-1]), bias)(x)


@pytest.mark.parametrize('layout', [torch.contiguous_format,
                                    torch.channels_last])
@pytest.mark.parametrize('case', CASES, ids=str)
def test_deployed_strips(case, layout, poison):
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


# With hidden channels that fill one vector, or several and a part.
EXCITED = [((2, 16, 11, 17, 15, 3, 6), 8), ((3, 32, 24, 5, 55, 5, 25), 21),
           ((1, 48, 1, 1, 13, 3, 6), 12), ((5, 96, 7, 9, 15, 3, 6), 24),
           ((2, 64, 3, 70, 5, 5, 2), 40), ((0, 16, 7, 9, 15, 3, 6), 8)]


def excitation(channels, hidden):
    generator = torch.Generator().manual_seed(hidden)
    return Excitation(*(
        torch.randn(*shape, generator=generator) / shape[-1]**.5 for shape in (
            (hidden, channels), (hidden, ), (channels, hidden), (channels, ))))


def run_excited(case, tensors, weights):
    x, strip_h, strip_v, bias = tensors
    return channel_launch.Deployed(
        x.shape, Strips.of(strip_h, strip_v, case[-1]), bias, weights)(x)


def expect_excited(case, tensors, weights):
    out = expected(case, *tensors)
    down, down_bias, up, up_bias = (t.double() for t in weights)
    hidden = (out.mean((2, 3)) @ down.T + down_bias).relu()
    return out * (hidden @ up.T + up_bias).sigmoid()[:, :, None, None]


@pytest.mark.parametrize('width', [8, 16])
@pytest.mark.parametrize('case, hidden', EXCITED, ids=str)
def test_squeeze_and_excitation(case, hidden, width, poison, monkeypatch):
    monkeypatch.setattr(channel_launch, 'vector_lanes', lambda: width)
    tensors, weights = make(case), excitation(case[1], max(hidden, width))
    assert channel_launch.excitation_reason(case[1], max(hidden,
                                                         width)) is None
    for _ in range(2):
        out = run_excited(case, tensors, weights)
        if out.numel():
            assert_near(out, expect_excited(case, tensors, weights))
            plain = run(case, *tensors)  # by another kernel
            assert_near(plain, expected(case, *tensors))
        # What is kept between launches is not read.
        tensors[0], weights = 2 * tensors[0], Excitation(
            *(-t for t in weights))


def only_scaled(case, tensors, width):
    """The strips without all but the centre of the channels behind the first
    vectors, in one of which another tap is left, and one centre is zero.
    """
    x, strip_h, strip_v, bias = (t.clone() for t in tensors)
    *_, places, n, before = case
    centre = strip_h[:, 0, n // 2, before].clone()
    strip_h[width:], strip_v[width:] = 0, 0
    strip_h[width:, 0, n // 2, before] = centre[width:]
    strip_h[-2, 0, n // 2, before] = 0
    if x.shape[1] >= 4 * width:
        strip_v[2 * width - 1, 0, -1, n - 1] = 1
        strip_h[3 * width - 1, 0, n - 1, 0] = -1
    return x, strip_h, strip_v, bias


@pytest.mark.parametrize('width', [8, 16])
@pytest.mark.parametrize('case, hidden', EXCITED, ids=str)
def test_channels_that_are_only_scaled(case, hidden, width, poison,
                                       monkeypatch):
    monkeypatch.setattr(channel_launch, 'vector_lanes', lambda: width)
    tensors = only_scaled(case, make(case), width)
    out = run(case, *tensors)
    if not out.numel():
        return
    assert_near(out, expected(case, *tensors))
    weights = excitation(case[1], max(hidden, width))
    assert_near(run_excited(case, tensors, weights),
                expect_excited(case, tensors, weights))


def test_what_is_not_a_number_is_no_lone_centre():
    case = EXCITED[3][0]
    tensors = only_scaled(case, make(case), 16)
    tensors[2][-1, 0, 2, 1] = float('nan')
    out = run(case, *tensors)
    assert out[:, -1].isnan().any() and not out[:, :-16].isnan().any()


def test_excitation_of_what_is_not_finite():
    case, hidden = EXCITED[3]
    tensors, weights = make(case), excitation(case[1], hidden)
    tensors[0][1, 5, 3, 3] = float('nan')
    out = run_excited(case, tensors, weights)
    assert out[1].isnan().all()
    clean = [0, 2, 3, 4]
    assert_near(out[clean], expect_excited(case, tensors, weights)[clean])


def test_excitation_does_not_depend_on_the_threads():
    case, hidden = EXCITED[3]
    tensors, weights = make(case), excitation(case[1], hidden)
    threads = torch.get_num_threads()
    outs = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            outs.append(run_excited(case, tensors, weights))
    finally:
        torch.set_num_threads(threads)
    for out in outs[1:]:
        assert torch.equal(out, outs[0])


@pytest.mark.parametrize('channels, hidden', [(20, 16), (32, 7)])
def test_why_it_cannot_excite(channels, hidden):
    words = channel_launch.excitation_reason(channels, hidden)
    assert words.endswith(f'not {channels} and {hidden}')


# (B, C, H, W, M, N, R)
CONV_CASES = [
    (2, 16, 12, 17, 13, 3, 1),
    (1, 19, 4, 9, 51, 3, 4),
    (3, 31, 24, 5, 51, 5, 2),
    (1, 17, 2, 2, 10, 5, 1),
    (2, 24, 14, 14, 47, 3, 4),
    (0, 16, 4, 9, 13, 3, 1),
]


def conv_case(case):
    b, c, h, w, m, n, reps = case
    spec = ShiftSpec.from_seed(channels=c, large_kernel=m, small_kernel=n,
                               num_reps=reps, seed=m)
    generator = torch.Generator().manual_seed(sum(case))
    return (spec, torch.randn(b, c, h, w, generator=generator),
            torch.randn(c * spec.num_taps, 1, n, n, generator=generator),
            torch.rand(c * spec.num_taps, generator=generator) < .6)


@pytest.mark.parametrize('outputs', [
    ('h', 'v', 'i'), ('i', 'h'), ('v', ), ('h', ), ('i', ), ('v', 'h')],
    ids=''.join)
@pytest.mark.parametrize('case', CONV_CASES, ids=str)
def test_the_form(case, outputs, poison):
    spec, x, weight, mask = conv_case(case)
    for given in (None, mask):
        wanted = shiftwise_conv(x.double(), weight.double(), spec,
                                outputs=outputs, form='strip', mask=given)
        for layout in (torch.contiguous_format, torch.channels_last):
            with torch.no_grad():
                ours = shiftwise_conv(
                    x.contiguous(memory_format=layout), weight, spec,
                    outputs=outputs, form='channels', mask=given)
            for a, b in zip(ours, wanted, strict=True):
                assert a.shape == b.shape and a.dtype == torch.float32
                if x.numel():
                    assert_near(a, b)


@pytest.mark.parametrize('case', CONV_CASES[1:3], ids=str)
def test_the_form_with_vectors_of_the_other_width(case, poison, monkeypatch):
    other = 24 - memory.vector_lanes()
    monkeypatch.setattr(channel_launch, 'vector_lanes', lambda: other)
    spec, x, weight, _ = conv_case(case)
    with torch.no_grad():
        ours = shiftwise_conv(x, weight, spec, form='channels')
    wanted = shiftwise_conv(x.double(), weight.double(), spec, form='strip')
    for a, b in zip(ours, wanted, strict=True):
        assert_near(a, b)


def test_the_form_sees_changes_and_misaligned_tensors():
    spec, x, weight, mask = conv_case(CONV_CASES[0])
    shifted = torch.empty(x.numel() + 1)[1:].view(x.shape).copy_(x)
    for change in (lambda: None, lambda: weight.data.mul_(2),
                   lambda: mask.data.logical_not_()):
        change()
        with torch.inference_mode():
            ours = shiftwise_conv(shifted, weight, spec, form='channels',
                                  mask=mask)
        # With gradients enabled nothing is kept.
        wanted = shiftwise_conv(x.double(), weight.double(), spec,
                                form='strip', mask=mask)
        for a, b in zip(ours, wanted, strict=True):
            assert_near(a, b)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_the_form_in_half_precision(dtype):
    spec, x, weight, _ = conv_case(CONV_CASES[0])
    x, weight = x.to(dtype), weight.to(dtype)
    wanted = shiftwise_conv(x.double(), weight.double(), spec, form='strip')
    with torch.no_grad():
        ours = shiftwise_conv(x, weight, spec, form='channels')
        if dtype == torch.bfloat16:
            with torch.autocast('cpu', dtype):
                ours += shiftwise_conv(x.float(), weight.float(), spec,
                                       form='channels')
                wanted *= 2
    for a, b in zip(ours, wanted, strict=True):
        assert a.dtype == dtype
        assert_near(a.double(), b, 1e-2)


def test_who_looks_at_operators_sees_others():
    spec, x, weight, _ = conv_case(CONV_CASES[0])
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        with pytest.raises(ValueError, match="form='channels' cannot run.*c"):
            shiftwise_conv(x, weight, spec, form='channels')
        shiftwise_conv(x, weight, spec)
    assert counter.get_total_flops() > 0


@pytest.mark.parametrize('shape, dtype, words', [
    ((1, 16, 8, 8), torch.float64, 'not torch.float64'),
    ((1, 16, 5, 7), torch.float32, 'multiple of 4 pixels, .*, not 5 x 7'),
    ((1, 16, 2048, 2049), torch.float32, 'at most 4194304, not 2048 x 2049'),
    ((1, 7, 8, 8), torch.float32, 'channels at least, not 7'),
])
def test_why_the_form_cannot_run(shape, dtype, words):
    x = torch.zeros(1, dtype=dtype).expand(shape)
    spec = ShiftSpec.from_seed(channels=shape[1], large_kernel=13,
                               small_kernel=3)
    with torch.no_grad():
        assert re.search(words, available_forms(x, spec)['channels'])
    assert available_forms(x, spec)['channels'] is not None


def test_gradients_are_none_of_the_form():
    spec, x, weight, _ = conv_case(CONV_CASES[0])
    with pytest.raises(ValueError, match='cannot run: it has no gradients'):
        shiftwise_conv(x, weight, spec, form='channels')


@pytest.mark.parametrize('vectors', ['AVX2', 'Zen 4', 'Zen 5', 'AVX512'])
def test_auto_takes_the_form_in_inference(vectors, monkeypatch):
    pretend_cpu(monkeypatch, vectors)
    taken = record_forms(monkeypatch)
    spec = ShiftSpec.from_seed(channels=64, large_kernel=13, small_kernel=3)
    weight = torch.zeros(320, 1, 3, 3)
    kept = torch.arange(320)
    with torch.no_grad():
        for size, count, expected_form in (
            ((56, 56), 320, 'channels'), ((56, 56), 160, 'fused'),
            ((40, 40), 320, 'channels'), ((40, 40), 160, 'fused'),
            ((14, 14), 320, 'channels'), ((14, 14), 160, 'channels'),
            ((7, 7), 320, 'strip'), ((57, 57), 320, 'fused'),
            ((160, 160), 320, 'fused')):
            x = torch.zeros(1).expand(4, 64, *size)
            shiftwise_conv(x, weight, spec, mask=kept < count)
            if vectors == 'Zen 5' and expected_form == 'channels':
                expected_form = 'strip' if size == (14, 14) else 'fused'
            elif vectors == 'AVX512' and size == (56, 56):
                expected_form = 'fused'
            assert taken.pop() == expected_form, (size, count)
    shiftwise_conv(x[..., :56, :56], weight, spec)
    assert taken.pop() == 'fused'


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


def test_tasks_wait_for_the_only_scratch(monkeypatch, poison):
    case = (3, 40, 9, 11, 15, 3, 6)
    tensors = make(case)
    run(case, *tensors)  # Taichi has its threads
    monkeypatch.setattr(channel_launch.runtime, 'threads', lambda: 1)
    channel_launch._plan.cache_clear()
    for _ in range(20):
        assert_near(run(case, *tensors), expected(case, *tensors))
    channel_launch._plan.cache_clear()


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
    assert channel_launch.reason(torch.empty(1, 16, 8, 8), 3, 15) is None
