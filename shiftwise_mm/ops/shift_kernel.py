"""Shift-add by the Taichi kernels, as an operator that torch knows."""
from __future__ import annotations

import torch
from torch import Tensor

from shiftwise_mm.kernels import runtime
from shiftwise_mm.kernels import shift_add as kernels

from .operator import operator
from .spec import ShiftSpec

__all__ = ['shift_add_taichi', 'taichi_reason']


def taichi_reason(y: Tensor, spec: ShiftSpec | None) -> str | None:
    """Why the Taichi kernels cannot take ``y``, or None."""
    if y.dtype not in kernels.DTYPES:
        allowed = ', '.join(str(d) for d in kernels.DTYPES)
        return f'the Taichi kernels take {allowed}, not {y.dtype}'
    if y.numel() > kernels.MAX_ELEMENTS:
        return ('Taichi indexes with 32 bits: at most '
                f'{kernels.MAX_ELEMENTS} elements, got {y.numel()}')
    return runtime.reason(y.device)


def _tables(spec: ShiftSpec, device: torch.device) -> dict[str, Tensor]:
    """The tables as the kernels want them, kept with the spec."""

    def make() -> dict[str, Tensor]:

        def flat(table: Tensor) -> Tensor:  # (R, C, ...) -> (C, R, ...)
            return table.transpose(0, 1).to(device,
                                            torch.int32).contiguous().view(-1)

        identity = spec.identity_tap
        if identity is None:
            identity = torch.zeros(1, 1)  # never read
        return {
            'h': flat(spec.tap_offsets('h')),
            'v': flat(spec.tap_offsets('v')),
            'i': flat(identity),
        }

    return spec.cached(('taichi', device), make)


_TABLES = 'hvi'


def _forward(y: Tensor, tables: list[Tensor], outputs: str, num_taps: int,
             small_kernel: int) -> list[Tensor]:
    """The outputs named in ``outputs``, each of ``'hvi'`` at most once."""
    # Detached: to what requires a gradient Taichi gives zeros for one.
    return list(
        kernels.forward(y.detach().contiguous(), tuple(outputs),
                        dict(zip(_TABLES, tables, strict=True)), num_taps,
                        small_kernel // 2))


_shift_add = operator('shift_add', _forward)


@torch.library.register_fake('shiftwise_mm::shift_add')
def _(y, tables, outputs, num_taps, small_kernel):
    less = small_kernel - 1
    return [
        y.new_empty(y.shape[0], y.shape[1] // num_taps, y.shape[2] - less,
                    y.shape[3] - less) for _ in outputs
    ]


def _transpose(grads: list[Tensor], tables: list[Tensor], outputs: str,
               num_taps: int, small_kernel: int) -> Tensor:
    """The transpose of shift-add."""
    return kernels.backward(
        {
            name: grad.detach().contiguous()
            for name, grad in zip(outputs, grads, strict=True)
        }, dict(zip(_TABLES, tables, strict=True)), num_taps,
        small_kernel // 2)


_shift_add_grad = operator('shift_add_grad', _transpose)


@torch.library.register_fake('shiftwise_mm::shift_add_grad')
def _(grads, tables, outputs, num_taps, small_kernel):
    batch, channels, height, width = grads[0].shape
    more = small_kernel - 1
    return grads[0].new_empty(batch, channels * num_taps, height + more,
                              width + more)


def _setup_context(ctx, inputs, output):
    _, ctx.tables, ctx.outputs, *ctx.sizes = inputs


def _backward(ctx, grads):
    given = [(n, g) for n, g in zip(ctx.outputs, grads, strict=True)
             if g is not None]
    if not given:
        return None, [None] * len(_TABLES), None, None, None
    names, grads = zip(*given, strict=True)
    return (_shift_add_grad(list(grads), ctx.tables, ''.join(names),
                            *ctx.sizes), [None] * len(_TABLES), None, None,
            None)


def _backward_of_grad(ctx, grad_y):
    # Linear: the gradient of the gradient is the operator again.
    return (_shift_add(grad_y, ctx.tables, ctx.outputs, *ctx.sizes),
            [None] * len(_TABLES), None, None, None)


torch.library.register_autograd('shiftwise_mm::shift_add', _backward,
                                setup_context=_setup_context)
torch.library.register_autograd('shiftwise_mm::shift_add_grad',
                                _backward_of_grad,
                                setup_context=_setup_context)


def shift_add_taichi(y: Tensor, spec: ShiftSpec,
                     outputs: tuple[str, ...]) -> tuple[Tensor, ...]:
    """Shift-add by the Taichi kernels, forward and backward.

    Args, returns: as :func:`shiftwise_mm.ops.reference.shift_add_reference`.
    """
    # Distinct names only: a kernel writes each output once.
    distinct = ''.join(dict.fromkeys(outputs))
    tables = _tables(spec, y.device)
    results = _shift_add(y, [tables[name] for name in _TABLES], distinct,
                         spec.num_taps, spec.small_kernel)
    return tuple(results[distinct.index(name)] for name in outputs)
