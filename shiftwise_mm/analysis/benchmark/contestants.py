"""Who competes in the shift-wise convolution and in shift-add."""
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from shiftwise_mm.ops import (
    available_backends,
    available_forms,
    shift_add,
    shiftwise_conv,
)

from .agreement import Disagreement, check_near
from .case import Case
from .dense import DENSE, dense_pair
from .published_kernel import published_taichi
from .strategies import STRATEGIES, Shift, plain_slicing

__all__ = ['Contestant', 'conv_contestants', 'shift_contestants', 'select',
           'check', 'Runner', 'GROUPED', 'PUBLISHED', 'COMPILED']

GROUPED = 'grouped convolution alone'
PUBLISHED = 'published Taichi way'
COMPILED = 'torch.compile of slicing'


@dataclass(frozen=True)
class Contestant:
    """One way to solve a case.

    Attributes:
        name (str): Of its row.
        kind (str): ``'ours'``, ``'torch'``, ``'dense'``, ``'published'``, or
            ``'part'`` for what is a part of others and not checked.
        build (Callable): Makes the leaves (``x`` first) and a function of
            them to the outputs.
        weight_grad (Callable, optional): From the gradients of the leaves
            behind ``x`` to that of the small kernels; by default the first
            of them.
    """

    name: str
    kind: str
    build: Callable[[], tuple[tuple[Tensor, ...], Callable]]
    weight_grad: Callable | None = None


class Runner:
    """A contestant ready to run on a case.

    Args:
        contestant (Contestant): Which.
        grads (tuple[Tensor]): Gradients of its outputs.
    """

    def __init__(self, contestant: Contestant,
                 grads: tuple[Tensor, ...] | None) -> None:
        self.contestant = contestant
        self.leaves, self._function = contestant.build()
        self._given, self._grads = grads, None

    @torch.no_grad()
    def forward(self) -> tuple[Tensor, ...]:
        """The outputs, nothing kept for gradients."""
        return self._function(*self.leaves)

    def both(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The outputs, and the gradients of all leaves."""
        outs = self._function(*self.leaves)
        if self._grads is None:  # in the layout of the outputs, as in a net
            given = self._given or map(torch.ones_like, outs)
            self._grads = [torch.empty_like(out).copy_(grad)
                           for out, grad in zip(outs, given, strict=True)]
        return outs, torch.autograd.grad(outs, self.leaves, self._grads)


def our_forms(case: Case) -> Iterator[Contestant]:
    """``auto`` and each form of the package's table that can run.

    They are given the mask of a case that has one.
    """
    reasons = available_forms(case.x, case.spec)
    names = ['auto', *(name for name, why in reasons.items() if why is None)]
    for name in names:
        yield Contestant(
            f'ours, {name}', 'ours', lambda name=name: (
                (case.x, case.weight),
                partial(shiftwise_conv, spec=case.spec, outputs=case.outputs,
                        form=name, mask=case.mask)))


def _small_convolution(case: Case) -> Callable[[Tensor, Tensor], Tensor]:
    """All small kernels of a channel in one grouped convolution."""
    return partial(F.conv2d, padding=case.spec.small_kernel - 1,
                   groups=case.spec.channels)


def _then(shift: Shift, conv: Callable) -> Callable:
    return lambda x, weight: shift(conv(x, weight))


def _with_shift(case: Case, name: str, kind: str, make: Callable,
                wrap: Callable = lambda function: function) -> Contestant:
    """Grouped convolution, then a strategy."""

    def build():
        shift = make(case.spec, case.outputs, case.shape[2:], case.device)
        return ((case.x, case.weight),
                wrap(_then(shift, _small_convolution(case))))

    return Contestant(name, kind, build)


def _dense(case: Case, name: str, layout: str, narrow: bool) -> Contestant:
    """The strips as parameters of their own, in the layout of ``x``."""

    def build():
        last = layout == 'channels_last'
        order = torch.channels_last if last else torch.contiguous_format
        kernels = tuple(
            case.strip(case.weight, output).detach().clone(
                memory_format=order).requires_grad_()
            for output in case.outputs)
        x = case.x_channels_last if last else case.x
        return (x, *kernels), dense_pair(case.spec, case.outputs, layout,
                                         narrow)

    def weight_grad(*grads: Tensor) -> Tensor:
        weight = case.weight.detach().requires_grad_()
        strips = [case.strip(weight, output) for output in case.outputs]
        return torch.autograd.grad(strips, weight, grads)[0]

    return Contestant(name, 'dense', build, weight_grad)


def conv_contestants(case: Case) -> list[Contestant]:
    """All ways to compute a shift-wise convolution."""
    found = list(our_forms(case))
    found += [_dense(case, name, *how) for name, how in DENSE.items()]
    found.append(_with_shift(
        case, COMPILED, 'dense', plain_slicing,
        partial(torch.compile, dynamic=False, fullgraph=True)))
    found += [_with_shift(case, name, 'torch', make)
              for name, make in STRATEGIES.items()]
    found.append(_with_shift(case, PUBLISHED, 'published', published_taichi))
    found.append(Contestant(GROUPED, 'part', lambda: (
        (case.x, case.weight),
        lambda x, weight: (_small_convolution(case)(x, weight), ))))
    return found


def shift_contestants(case: Case) -> list[Contestant]:
    """All ways to compute shift-add alone, from one ``y``."""
    conv = _small_convolution(case)
    y = conv(case.x, case.weight).detach().requires_grad_()

    def grad_of_weight(grad: Tensor) -> Tensor:
        weight = case.weight.detach().requires_grad_()
        return torch.autograd.grad(conv(case.x.detach(), weight), weight,
                                   grad)[0]

    def only(name: str, kind: str, make: Callable) -> Contestant:
        return Contestant(name, kind, lambda: ((y, ), make(
            case.spec, case.outputs, case.shape[2:], case.device)),
                          grad_of_weight)

    def ours(name: str) -> Callable:
        return lambda spec, outputs, *_: partial(
            shift_add, spec=spec, outputs=outputs, backend=name)

    found = [only(f'ours, {name}', 'ours', ours(name))
             for name, why in available_backends(y).items()
             if why is None and name != 'reference']
    found += [only(name, 'torch', make) for name, make in STRATEGIES.items()]
    found.append(only(PUBLISHED, 'published', published_taichi))
    return found


def select(contestants: list, rows: list[str] | None) -> list:
    """Those that ``rows`` choose: by a whole name, else by a part of it.

    Capitals do not count.

    Raises:
        ValueError: If one of ``rows`` fits none, naming all.
    """
    if not rows:
        return contestants
    names = [c.name.lower() for c in contestants]
    chosen: set[str] = set()
    for row in rows:
        row = row.lower()
        fitting = {row} if row in names else {n for n in names if row in n}
        if not fitting:
            raise ValueError(f'no row contains {row!r}; there are '
                             f'{[c.name for c in contestants]}')
        chosen |= fitting
    return [c for c, name in zip(contestants, names, strict=True)
            if name in chosen]


def check(runner: Runner, case: Case) -> None:
    """Holds a contestant's outputs and gradients against the answer.

    The gradient of a masked tap counts for nothing.

    Raises:
        Disagreement: If one differs, naming the contestant.
    """
    name = runner.contestant.name
    outs, grads = runner.both()
    expected, grad_x, grad_weight = case.answer
    if len(outs) != len(expected):
        raise Disagreement(f'{name}: {len(outs)} outputs, expected '
                           f'{len(expected)}')
    for output, out, right in zip(case.outputs, outs, expected, strict=True):
        check_near(name, f'output {output}', out, right)
    if len(runner.leaves) > 1:  # shift-add alone has y only
        check_near(name, 'gradient of x', grads[0], grad_x)
        grads = grads[1:]
    make = runner.contestant.weight_grad
    found = make(*grads) if make else grads[0]
    kept = case.kept.view(-1, 1, 1, 1)
    check_near(name, 'gradient of the small kernels', found * kept,
               grad_weight * kept)
