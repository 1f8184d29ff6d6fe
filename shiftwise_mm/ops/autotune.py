"""Measuring which form of an operator is fastest, once for each case.

A choice is kept in memory and, for later processes, in a file
(:mod:`.autotune_file`).
"""
from __future__ import annotations

import math
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from statistics import median

import torch
import torch.distributed as dist
from torch import Tensor
from torch._guards import active_fake_mode
from torch.autograd.graph import saved_tensors_hooks
from torch.fx.experimental.symbolic_shapes import has_static_value
from torch.utils._python_dispatch import _disable_current_modes

from . import autotune_file
from .spec import ShiftSpec

__all__ = ['set_autotune', 'is_on', 'choice']

_ROUNDS = (6, 30)  # the first warms up, the third leaves out what is slow
_ENOUGH = 0.3  # seconds, after which the fewest rounds do
_SLOW = 2  # times the fastest: not measured any further

_on = False
_lock = threading.RLock()
# As in the file, and with a form or times of None where it has failed.
_memory: autotune_file.Choices = {}
# Process group -> case -> form. Weak: a group that is kept keeps its port.
_agreed: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def set_autotune(on: bool) -> None:
    """Lets ``form='auto'`` measure, instead of following a cost rule.

    The first call of :func:`shiftwise_conv` with a new case (shape, dtype,
    device, layout, gradients needed, ``M``, ``N``, ``R``, outputs, density of
    a mask in eighths) runs each form that can run on random tensors of that
    case, with the mask given; generators, gradients,
    hooks and modes of the caller are not touched. It takes a second or so,
    and the memory of the hungriest form beside the caller's. The fastest by
    median is taken from then on, in later processes as well: it is kept in a
    file (:mod:`.autotune_file`), under the versions of torch, Taichi and
    this package, the device's name and torch's threads. What a busy machine
    has measured stays until that file is deleted.

    Nothing is measured under autocast, ``torch.compile``, tracing, export,
    ``torch.func``, fake tensors, and the capture of CUDA graphs: there the
    choice remembered counts, else the cost rule (always in ``torch.jit``
    traces and for dynamic shapes). The rule also stands in for a choice that
    cannot run any more.

    In a job of several ranks (``torch.distributed``) each rank measures by
    itself and proposes its choice in the job's store, where the first
    proposal stands and all ranks take it. That is no collective and waits
    for no rank, so ranks may meet other cases than their peers, or none, and
    always compute one case by one form. Where nothing is measured, a job
    follows the cost rule, for a peer may not remember the same.

    Args:
        on (bool): Whether to measure. The default of the package is False.

    Raises:
        TypeError: If ``on`` is not a bool.
    """
    global _on
    if not isinstance(on, bool):
        raise TypeError(f'on must be True or False, got {on!r}')
    with _lock:
        if on:
            autotune_file.merge(_memory, autotune_file.read() or {})
        _on = on


def is_on() -> bool:
    """Whether :func:`set_autotune` has been switched on."""
    return _on


def choice(candidates: dict[str, Callable], x: Tensor, weight: Tensor,
           spec: ShiftSpec, outputs: tuple[str, ...], training: bool,
           masked: bool = False, density: float | None = None) -> str | None:
    """The fastest candidate for these arguments, measured if need be.

    Args:
        candidates (dict[str, Callable]): What can run, by name: functions of
            ``(x, weight, spec, outputs)``.
        x (Tensor): Input ``(B, C, H, W)``.
        weight (Tensor): Small kernels ``(C*k, 1, N, N)``.
        spec (ShiftSpec): Sizes and tables.
        outputs (tuple[str]): The outputs wanted.
        training (bool): Whether gradients are needed.
        masked (bool): Whether the candidates have a mask.
        density (float, optional): Of that mask, where it is known.

    Returns:
        str | None: The name, or None where the cost rule is to decide.
    """
    if masked and density is None:
        return None
    in_job = dist.is_available() and dist.is_initialized() \
        and dist.get_world_size() > 1
    needs = (training and x.requires_grad, training and weight.requires_grad)
    if not _can_measure(x):
        # A compiler would compile anew for each size that is looked up.
        if in_job or torch.jit.is_tracing() or not all(
                has_static_value(size) for size in x.shape):
            return None
        name = _recall(str(x.device), _case(x, needs, spec, outputs, density))
        return name if name in candidates else None
    case = _case(x, needs, spec, outputs, density)
    own = partial(_own_choice, candidates, case, x, needs, spec, outputs)
    with _lock:
        if not in_job:
            return own()
        known = _agreed.setdefault(dist.group.WORLD, {})
        if case not in known:
            known[case] = _agree(case, own())
        name = known[case]
    return name if name in candidates else None


def _can_measure(x: Tensor) -> bool:
    # is_compiling comes first: compilers cannot read all of the others.
    return not (torch.compiler.is_compiling() or torch.compiler.is_exporting()
                or torch.jit.is_tracing()
                or active_fake_mode() is not None
                or torch._C._functorch.maybe_current_level() is not None
                or not torch._C._autograd._saved_tensors_hooks_is_enabled()
                or x.device.type not in ('cpu', 'cuda')
                or torch.is_autocast_enabled(x.device.type)
                or x.is_cuda and torch.cuda.is_current_stream_capturing()
                or not x.numel())


def _layout(x: Tensor) -> list[int]:
    """The dimensions from the outermost in memory."""
    return sorted(range(4), key=lambda dim: -(x.stride(dim) or math.inf))


def _case(x: Tensor, needs: tuple[bool, bool], spec: ShiftSpec,
          outputs: tuple[str, ...], density: float | None = None) -> str:
    """All that the speed depends on, as a line; the same on all ranks."""
    kind = x.device.type
    dtype = (torch.get_autocast_dtype(kind)
             if torch.is_autocast_enabled(kind) else x.dtype)
    shape = 'x'.join(str(size) for size in x.shape)
    layout = ''.join('BCHW'[dim] for dim in _layout(x))
    wanted = ' and '.join(
        name for name, need in zip(('x', 'weight'), needs, strict=True)
        if need)
    eighths = '' if density is None else \
        f', density {math.ceil(8 * density)}/8'
    return (f'{shape} in {layout}, {dtype}, {kind}, '
            f'gradients of {wanted or "nothing"}, M{spec.large_kernel} '
            f'N{spec.small_kernel} R{spec.num_reps}, '
            f'outputs {"".join(sorted(outputs))}{eighths}')


@torch.compiler.assume_constant_result
def _recall(device: str, case: str) -> str | None:
    """The choice remembered in this process, for compilers a constant."""
    entry = _memory.get(autotune_file.environment(device), {}).get(case)
    return None if entry is None else entry['form']


def _own_choice(candidates, case: str, x: Tensor, needs, spec,
                outputs) -> str | None:
    """The choice of this process: remembered, or measured now."""
    if len(candidates) < 2:
        return next(iter(candidates), None)
    cases = _memory.setdefault(autotune_file.environment(str(x.device)), {})

    def missing() -> bool:  # a candidate may be new since it was measured
        return case not in cases or not candidates.keys() <= \
            cases[case]['ms'].keys()

    if missing():
        autotune_file.merge(_memory, autotune_file.read() or {})
    if missing():
        cases[case] = _measure(candidates, case, x, needs, spec, outputs)
        autotune_file.save(_memory)
    name = cases[case]['form']
    return name if name in candidates else None


def _agree(case: str, proposed: str | None) -> str | None:
    """The choice of all ranks: what the first to propose has proposed."""
    store = dist.group.WORLD.get_group_store()
    if proposed is None or store is None:
        return None
    try:
        return store.compare_set(f'shiftwise_mm/autotune/{case}', '',
                                 proposed).decode()
    except RuntimeError as error:  # the rank that holds the store has ended
        warnings.warn(f'no agreement on the form for {case}: {error}',
                      RuntimeWarning, stacklevel=4)
        return None


def _measure(candidates, case: str, x: Tensor, needs, spec, outputs) -> dict:
    """Times all candidates, with a warning for each that fails."""
    with _nothing_of_the_callers(), torch.cuda.device_of(x), \
            torch.set_grad_enabled(any(needs)):
        *inputs, grad = _random_like(x, spec)
        leaves = [
            tensor.requires_grad_()
            for tensor, need in zip(inputs, needs, strict=True) if need
        ]

        def run(function):
            out = function(*inputs, spec, outputs)
            if leaves:
                torch.autograd.grad(out, leaves, [grad] * len(out))

        times, failed = _times({name: partial(run, function)
                                for name, function in candidates.items()},
                               x.device)
    for name, why in failed.items():
        warnings.warn(f'form={name!r} is left out of the measuring for '
                      f'{case}: {why}', RuntimeWarning, stacklevel=6)
    return {'form': min(times, key=times.get, default=None),
            'ms': {name: times.get(name) for name in candidates}}


@contextmanager
def _nothing_of_the_callers():
    """Modes and hooks of the caller (checkpointing counts) put aside.

    A thread of its own would do it as well, but a second pool of OpenMP's
    waits otherwise than the first, and times come out twice as long.
    """
    with _disable_current_modes(), torch._C.DisableTorchFunction(), \
            saved_tensors_hooks(lambda t: t, lambda t: t), \
            torch.inference_mode(False):
        yield


def _random_like(x: Tensor, spec: ShiftSpec) -> list[Tensor]:
    """An input in the layout of ``x``, small kernels, and a gradient."""
    generator = torch.Generator(x.device)
    generator.manual_seed(0)
    order, n = _layout(x), spec.small_kernel
    made = [
        torch.randn(shape, dtype=x.dtype, device=x.device,
                    generator=generator)
        for shape in ([x.shape[dim] for dim in order],
                      (spec.channels * spec.num_taps, 1, n, n),
                      [x.shape[dim] for dim in order])
    ]
    back = [order.index(dim) for dim in range(4)]
    return [made[0].permute(back), made[1], made[2].permute(back)]


def _times(runs: dict[str, Callable], device: torch.device) \
        -> tuple[dict[str, float], dict[str, str]]:
    """Medians of interleaved repeats in ms, and why others have none."""
    times, failed = {name: [] for name in runs}, {}
    running = list(runs)
    start = time.perf_counter()
    for index in range(_ROUNDS[1]):
        if index >= _ROUNDS[0] and time.perf_counter() - start > _ENOUGH:
            break
        for name in running:
            try:
                times[name].append(_time(runs[name], device))
            except Exception as error:
                failed[name] = f'{type(error).__name__}: {error}'
        running = [name for name in running if name not in failed]
        if index == 2:
            best = {name: min(times[name][1:]) for name in running}
            running = [name for name in running
                       if best[name] <= _SLOW * min(best.values())]
    return {name: round(median(measured[1:]), 4)
            for name, measured in times.items() if name not in failed}, failed


def _time(run: Callable, device: torch.device) -> float:
    """Milliseconds of one run."""
    if device.type == 'cuda':
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop)
    begin = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - begin)
