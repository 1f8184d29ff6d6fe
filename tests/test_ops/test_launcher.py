"""Launches by address against Taichi's own."""
import torch
import torch.nn.functional as F
from helpers import assert_near
from shiftwise_mm.kernels import channel_launch, fused_launch, launcher
from shiftwise_mm.kernels.channel_launch import Strips

from shiftwise_mm.ops import ShiftSpec, shiftwise_conv

SPEC = ShiftSpec.from_seed(channels=3, large_kernel=13, small_kernel=3)


def run():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 17, 16, generator=generator, requires_grad=True)
    weight = torch.randn(15, 1, 3, 3, generator=generator,
                         requires_grad=True)
    out = shiftwise_conv(x, weight, SPEC, form='fused')
    return *out, *torch.autograd.grad(out, (x, weight), out)


def counted(monkeypatch):
    """How often Taichi's own way was taken, by kernel."""
    calls = []
    call = launcher.call

    def spy(kernel, *arguments, **kept):

        def usual(*given):
            calls.append(kernel.__name__)
            kernel(*given)

        usual._primal = kernel._primal
        call(usual, *arguments, **kept)

    monkeypatch.setattr(fused_launch.launcher, 'call', spy)
    return calls


def test_later_launches_are_the_same(monkeypatch):
    expected = run()
    calls = counted(monkeypatch)
    for ours, first in zip(run(), expected, strict=True):
        assert torch.equal(ours, first)
    assert not calls


def test_a_new_runtime_compiles_again(monkeypatch):
    import taichi
    expected = run()
    calls = counted(monkeypatch)
    taichi.reset()
    for ours, first in zip(run(), expected, strict=True):
        assert torch.equal(ours, first)
    assert calls == ['fused_forward', 'fused_backward']


def test_other_releases_are_called_as_usual(monkeypatch):
    import taichi
    expected = run()
    monkeypatch.setattr(taichi, '__version__', (1, 8, 0))
    monkeypatch.setattr(launcher, '_launches', {})
    fused_launch._plan.cache_clear()
    calls = counted(monkeypatch)
    for ours, first in zip(run(), expected, strict=True):
        assert torch.equal(ours, first)
    assert calls == ['fused_forward', 'fused_backward']


def test_threads_and_their_number_may_change():
    threads = torch.get_num_threads()
    expected = run()
    try:
        torch.set_num_threads(threads + 1)
        for ours, first in zip(run(), expected, strict=True):
            assert_near(ours, first)
    finally:
        torch.set_num_threads(threads)


def test_kept_launches_take_new_tensors_and_runtimes(monkeypatch):
    import taichi
    generator = torch.Generator().manual_seed(0)
    layers = [[torch.randn(*size, generator=generator) for size in
               ((16, 1, 3, 15), (16, 1, 15, 3), (16, ))] for _ in range(2)]
    images = [torch.randn(2, 16, 9, 11, generator=generator)
              for _ in range(2)]

    made = [channel_launch.Deployed(images[0].shape,
                                    Strips.of(strip_h, strip_v, 6), bias)
            for strip_h, strip_v, bias in layers]

    def outs():
        with torch.inference_mode():
            return [launch(image) for image in images for launch in made]

    expected = [
        F.conv2d(F.pad(image.double(), (6, 8, 1, 1)), strip_h.double(),
                 groups=16) +
        F.conv2d(F.pad(image.double(), (1, 1, 6, 8)), strip_v.double(),
                 bias.double(), groups=16)
        for image in images for strip_h, strip_v, bias in layers]
    outs()
    calls = counted(monkeypatch)
    for resets in range(2):
        for out, wanted in zip(outs() + outs(), expected * 2, strict=True):
            assert_near(out, wanted)
        assert calls == ['deployed_strips'] * resets
        taichi.reset()
