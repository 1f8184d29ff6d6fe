"""Calls in inference that are like earlier ones."""
import threading

import pytest
import torch
from helpers import assert_near
from torch.utils.flop_counter import FlopCounterMode

from shiftwise_mm.ops import (
    ShiftSpec,
    available_forms,
    prepared,
    set_autotune,
    shiftwise_conv,
)

SPEC = ShiftSpec.from_seed(channels=3, large_kernel=13, small_kernel=3)
ROWS, COLUMNS = 17, 16


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(2, 3, ROWS, COLUMNS, generator=generator),
            torch.randn(15, 1, 3, 3, generator=generator),
            torch.rand(15, generator=generator) < .6)


@pytest.fixture
def launches(monkeypatch):
    """How often a call was prepared, or one that had been has run."""
    seen = []
    known, keep = prepared.known, prepared.keep

    def spy_known(case):
        found = known(case)
        seen.extend([case] * (found is not None))
        return found

    def spy_keep(case, made):
        seen.append(case)
        keep(case, made)

    monkeypatch.setattr(prepared, 'known', spy_known)
    monkeypatch.setattr(prepared, 'keep', spy_keep)
    return seen


@torch.no_grad()
def call(x, weight, mask=None, outputs=('h', 'v', 'i'), form='fused'):
    return shiftwise_conv(x, weight, SPEC, outputs=outputs, mask=mask,
                          form=form)


@torch.no_grad()
def expected(x, weight, mask=None, outputs=('h', 'v', 'i')):
    return shiftwise_conv(x.double(), weight.double(), SPEC, outputs=outputs,
                          mask=mask, form='shift')


def check(*given, **named):
    ours = call(*given, **named)
    named.pop('form', None)
    for a, b in zip(ours, expected(*given, **named), strict=True):
        assert_near(a, b)
    return ours


def test_later_calls_take_new_tensors(inputs, launches, poison):
    x, weight, mask = inputs
    kept = []
    for _ in range(3):
        kept.append((check(x, weight, mask), expected(x, weight, mask)))
        x, weight = torch.randn_like(x), torch.randn_like(weight)
    assert len(launches) == 3 and len(prepared._calls) == 1
    for ours, exact in kept:  # nobody has written over them
        for a, b in zip(ours, exact, strict=True):
            assert_near(a, b)


def test_changes_in_place_are_seen(inputs, launches):
    x, weight, mask = inputs
    check(x, weight, mask)
    weight.data.mul_(-2)  # which changes no version
    x.data.add_(1)
    check(x, weight, mask)
    mask.data.logical_not_()
    check(x, weight, mask)
    mask.data.fill_(False)
    assert not any(out.any() for out in call(x, weight, mask))
    assert len(launches) == 3


def test_outputs_forms_and_masks_are_told_apart(inputs, launches):
    x, weight, mask = inputs
    for _ in range(2):
        for outputs in (('h', 'v', 'i'), ('i', 'h'), ('v', ), 'h', ['v']):
            for given in (None, mask, ~mask):
                check(x, weight, given, outputs=outputs)
        check(x, weight, mask, form='strip')
        check(x, weight, mask, form='auto')
    assert len(launches) == 2 * 3 * 3  # of tuples


@pytest.mark.parametrize('change', [
    lambda x: x.contiguous(memory_format=torch.channels_last),
    lambda x: x[:, :, :, 1:],
    lambda x: torch.cat([x.flatten(), x.new_zeros(1)])[1:].view(x.shape),
    lambda x: x[:0],
], ids=['channels_last', 'narrow', 'misaligned', 'empty'])
def test_other_layouts_are_looked_at_anew(inputs, launches, change):
    x, weight, mask = inputs
    check(x, weight, mask)
    check(change(x), weight, mask)
    check(change(x), weight, mask)
    apart = torch.stack([weight, weight], -1)[..., 0]
    check(x, apart, mask)
    assert len(launches) == 1


def test_where_others_look_nothing_is_prepared(inputs, launches):
    x, weight, mask = inputs
    call(x, weight, mask)
    x.requires_grad_()
    out = shiftwise_conv(x, weight, SPEC, mask=mask, form='fused')
    assert torch.autograd.grad(out[0].sum(), x)[0].any()
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        out = shiftwise_conv(x, weight, SPEC, mask=mask, form='fused')
        assert out[0].dtype == torch.bfloat16
    with FlopCounterMode(display=False) as counter:
        call(x.detach(), weight, mask)
    assert counter.get_total_flops() > 0
    set_autotune(True)
    try:
        check(x, weight, mask)
    finally:
        set_autotune(False)
    assert len(launches) == 1


def test_arguments_are_still_checked(inputs):
    x, weight, mask = inputs
    call(x, weight, mask)
    for wrong, error in (
            (dict(mask=mask[1:]), ValueError),
            (dict(mask=mask.float()), TypeError),
            (dict(mask=mask.byte()), TypeError),
            (dict(outputs=('h', 'w')), ValueError),
            (dict(outputs=('h', ['v'])), ValueError),
            (dict(outputs=3), TypeError),
            (dict(form='fast'), ValueError)):
        with pytest.raises(error):
            call(x, weight, **{'mask': mask, **wrong})
    for given in ((x[:, :2], weight), (x, weight[1:]), (x[0], weight),
                  (x.long(), weight), (x, weight.double()), (None, weight),
                  (x, weight.tolist())):
        with pytest.raises((TypeError, ValueError)):
            call(*given, mask)


def test_a_new_runtime_and_other_threads(inputs, launches):
    import taichi
    x, weight, mask = inputs
    first = call(x, weight, mask)
    taichi.reset()
    check(x, weight, mask)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        second = call(x, weight, mask)
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
    assert len(launches) == 3 and len(prepared._calls) == 2


def test_several_threads_share_what_is_prepared(inputs):
    x, weight, mask = inputs
    exact, done = expected(x, weight, mask), []

    def many():
        for _ in range(20):
            for a, b in zip(call(x, weight, mask), exact, strict=True):
                assert_near(a, b)
        done.append(True)

    threads = [threading.Thread(target=many) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 4  # what a thread raises is not raised here


def test_no_more_than_so_many_are_kept(inputs, monkeypatch):
    x, weight, _ = inputs
    monkeypatch.setattr(prepared, '_KEPT', 3)
    for flag in range(5):
        mask = torch.ones(15, dtype=torch.bool)
        mask[flag] = False
        check(x, weight, mask)
    assert 0 < len(prepared._calls) <= 3


def test_a_rule_that_passes_it_over_prepares_nothing(inputs, launches):
    x, weight, mask = inputs  # so small that `auto` takes strips
    assert available_forms(x, SPEC)['fused'] is None
    check(x, weight, mask, form='auto')
    assert not launches and not prepared._calls
