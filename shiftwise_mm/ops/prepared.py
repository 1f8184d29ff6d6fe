"""Calls in inference that are like earlier ones: prepared once.

Checks, the choice of a form, lists of taps and what a launch needs of Taichi
take 0.4 ms where caches are cold, as they are in a network: an eighth of what
the form ``fused`` takes for a large sparse layer.
"""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Parameter

from shiftwise_mm.kernels import runtime

from . import autotune
from .masks import is_plain_inference, read_mask
from .spec import ShiftSpec

__all__ = ['may_repeat', 'input_case', 'case_of', 'known', 'keep']

_KEPT = 256  # those of a model or two
_TENSORS = (Tensor, Parameter)

_calls: dict[tuple, Callable] = {}


def may_repeat() -> bool:
    """Whether the same call runs the same again: nothing measures what to
    run, and Taichi's runtime is ours.
    """
    return not (autotune.is_on() or runtime.is_foreign())


def input_case(x: Tensor) -> tuple:
    """What a kept launch depends on beside weights: shape, dtype, threads."""
    return x.shape, x.dtype, torch.get_num_threads()


def case_of(x: Tensor, weight: Tensor, spec: ShiftSpec,
            outputs: tuple[str, ...], form: str,
            mask: Tensor | None) -> tuple | None:
    """All that a call of :func:`~.forms.shiftwise_conv` depends on but the
    values of ``x`` and ``weight``; None if it is to be looked at anew.

    Only calls that nobody differentiates or looks into, of f32 tensors as
    kernels of the CPU read them, where the rule chooses the form. Arguments
    may be of any type, for nothing was checked before.
    """
    if torch.is_grad_enabled() or not (
            type(x) in _TENSORS and type(weight) in _TENSORS
            and type(spec) is ShiftSpec and type(outputs) is tuple
            and all([type(name) is str for name in (form, *outputs)])
            and (mask is None or type(mask) is Tensor)):
        return None
    tensors = (x, weight) if mask is None else (x, weight, mask)
    if not is_plain_inference(*tensors) or not may_repeat():
        return None
    if not (x.dtype == weight.dtype == torch.float32 and x.is_contiguous()
            and weight.is_contiguous() and x.data_ptr() % 16 == 0):
        return None
    flags = None if mask is None else (mask.dtype, mask.shape, read_mask(mask))
    return (x.shape, weight.shape, spec.digest, outputs, form, flags,
            torch.get_num_threads())


def known(case: tuple) -> Callable | None:
    """What was kept for ``case``: a function of ``x`` and ``weight``."""
    return _calls.get(case)


def keep(case: tuple, call: Callable) -> None:
    """Keeps ``call`` for the next of this case."""
    if len(_calls) >= _KEPT:
        _calls.clear()
    _calls[case] = call
