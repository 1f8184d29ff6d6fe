"""Autograd around the Taichi kernels of shift-add."""
from __future__ import annotations

import torch
from torch import Tensor

from shiftwise_mm.kernels import runtime
from shiftwise_mm.kernels import shift_add as kernels

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


class _ShiftAdd(torch.autograd.Function):
    """Shift-add; linear, so its gradient's gradient is itself again."""

    @staticmethod
    def forward(ctx, y: Tensor, spec: ShiftSpec,
                outputs: tuple[str, ...]) -> tuple[Tensor, ...]:
        ctx.spec, ctx.outputs = spec, outputs
        ctx.set_materialize_grads(False)
        return kernels.forward(y.detach().contiguous(), outputs,
                               _tables(spec, y.device), spec.num_taps,
                               spec.small_kernel // 2)

    @staticmethod
    def backward(ctx, *grads: Tensor | None):
        given = [(n, g) for n, g in zip(ctx.outputs, grads, strict=True)
                 if g is not None]
        if not given:
            return None, None, None
        names, grads = zip(*given, strict=True)
        return _ShiftAddGrad.apply(ctx.spec, names, *grads), None, None


class _ShiftAddGrad(torch.autograd.Function):
    """The transpose of shift-add."""

    @staticmethod
    def forward(ctx, spec: ShiftSpec, names: tuple[str, ...],
                *grads: Tensor) -> Tensor:
        ctx.spec, ctx.names = spec, names
        return kernels.backward(
            {
                name: grad.detach().contiguous()
                for name, grad in zip(names, grads, strict=True)
            }, _tables(spec, grads[0].device), spec.num_taps,
            spec.small_kernel // 2)

    @staticmethod
    def backward(ctx, grad_y: Tensor):
        return None, None, *_ShiftAdd.apply(grad_y, ctx.spec, ctx.names)


def shift_add_taichi(y: Tensor, spec: ShiftSpec,
                     outputs: tuple[str, ...]) -> tuple[Tensor, ...]:
    """Shift-add by the Taichi kernels, forward and backward.

    Args, returns: as :func:`shiftwise_mm.ops.reference.shift_add_reference`.
    """
    # Distinct names only: a kernel writes each output once.
    distinct = tuple(dict.fromkeys(outputs))
    results = dict(zip(distinct, _ShiftAdd.apply(y, spec, distinct),
                       strict=True))
    return tuple(results[name] for name in outputs)
