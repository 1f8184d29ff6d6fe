"""Each form and backend that can run, against the definition."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from shiftwise_mm.ops import (
    ShiftSpec,
    available_backends,
    available_forms,
    shift_add,
    shiftwise_conv,
)
from shiftwise_mm.ops.reference import shift_add_reference

from .check import ABSENT, BROKEN, OK, UNTESTED, Check, one_line

__all__ = ['TOLERANCE', 'devices', 'self_test']

TOLERANCE = 1e-4
"""Largest error in float32, as a share of the largest value."""
_SPEC = dict(channels=17, large_kernel=13, small_kernel=3, num_reps=2)
_BATCH, _HEIGHT, _WIDTH = 2, 20, 23  # no vector is full at the edges
_COMPILED = ('fused', 'channels')  # forms whose kernels take long to compile


@dataclass(frozen=True)
class _Case:
    """An operator's inputs in float64, and what has to come of them."""

    inputs: tuple[Tensor, ...]
    grads: tuple[Tensor, ...]
    expected: tuple[Tensor, ...]

    def error_of(self, function: Callable, device: str) -> float:
        """Largest error of outputs and gradients, relative to each one.

        Of outputs alone where gradients are not enabled.
        """
        inputs = [x.to(device, torch.float32).requires_grad_()
                  for x in self.inputs]
        grads = [g.to(device, torch.float32) for g in self.grads]
        results = outputs = function(*inputs)
        if torch.is_grad_enabled():
            results = (*outputs, *torch.autograd.grad(outputs, inputs, grads))
        errors = [((result.detach().cpu().double() - value).abs().max()
                   / value.abs().max()).item()
                  for result, value in zip(
                      results, self.expected[:len(results)], strict=True)]
        # A NaN would be lost in a maximum.
        return max(errors) if all(e == e for e in errors) else float('nan')


def _case(function: Callable, *shapes: tuple[int, ...]) -> _Case:
    generator = torch.Generator().manual_seed(0)

    def rand(shape) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    inputs = tuple(rand(shape) for shape in shapes)
    leaves = [x.clone().requires_grad_() for x in inputs]
    outputs = function(*leaves)
    grads = tuple(rand(out.shape) for out in outputs)
    expected = (*outputs, *torch.autograd.grad(outputs, leaves, grads))
    return _Case(inputs, grads, tuple(value.detach() for value in expected))


def devices() -> list[str]:
    """What the operators can run on here."""
    return ['cpu', *(['cuda'] if torch.cuda.is_available() else [])]


def self_test(full: bool = False) -> Iterator[Check]:
    """A finding for each form and backend, on each device.

    Those that can run are compared with the definition in float64, outputs
    and gradients (of form ``channels``, which has none, outputs): on
    ``(2, 17, 20, 23)``, a 13x13-class kernel of 3x3 ones. Those that cannot
    are :data:`ABSENT`, with the reason.

    Args:
        full (bool): Whether to test the forms, too, whose kernels take long
            to compile. By default they are :data:`UNTESTED`.
    """
    spec = ShiftSpec.from_seed(**_SPEC)
    names, n, c = ('h', 'v', 'i'), spec.small_kernel, spec.channels
    kernels = c * spec.num_taps
    reference = partial(shift_add_reference, spec=spec, outputs=names)

    def defined(x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        return reference(F.conv2d(x, weight, padding=n - 1, groups=c))

    forms = _case(defined, (_BATCH, c, _HEIGHT, _WIDTH), (kernels, 1, n, n))
    backends = _case(reference,
                     (_BATCH, kernels, _HEIGHT + n - 1, _WIDTH + n - 1))
    for device in devices():
        x, y = (case.inputs[0].to(device, torch.float32)
                for case in (forms, backends))
        for name in available_forms(x, spec):
            with torch.set_grad_enabled(name != 'channels'):
                why = available_forms(x, spec)[name]
                check = _tested(
                    f'form {name} on {device}', why, forms,
                    partial(shiftwise_conv, spec=spec, outputs=names,
                            form=name), device, full or name not in _COMPILED)
            yield check
        for name, why in available_backends(y).items():
            yield _tested(
                f'backend {name} on {device}', why, backends,
                partial(shift_add, spec=spec, outputs=names, backend=name),
                device)


def _tested(name: str, why: str | None, case: _Case, function: Callable,
            device: str, now: bool = True) -> Check:
    if why is not None:
        return Check(name, ABSENT, f'cannot run: {why}')
    if not now:
        return Check(name, UNTESTED, 'can run; --full compiles its kernels, '
                     'up to half a minute, and tests it')
    try:
        error = case.error_of(function, device)
    # Whatever a kernel may raise, the others are tested.
    except Exception as error:
        return Check(name, BROKEN, one_line(error))
    what = 'outputs and gradients' if torch.is_grad_enabled() else 'outputs'
    text = (f'{what} differ from the definition by {error:.1g} of the largest '
            'value')
    if not error <= TOLERANCE:
        return Check(name, BROKEN, f'{text}, allowed {TOLERANCE:g}')
    return Check(name, OK, text)
