"""The wide half of the unirep block, which keeps one wide tensor."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from shiftwise_mm.ops.gelu_grn import training, training_is_faster
from shiftwise_mm.ops.linear import linear, product, product_over_rows

from .norm import channel_norms

__all__ = ['gelu_grn_linear']


class _ByTorch:
    """The steps beside the matrix products, with one wide tensor kept."""

    def __init__(self, x: Tensor) -> None:
        self.x, self.wide = x, F.gelu(x)

    def norms(self) -> Tensor:
        return channel_norms(self.wide)

    def entering(self, factor: Tensor, beta: Tensor) -> Tensor:
        return _affine(self.wide, factor, beta)

    def sums(self, grad: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        places = dict(dim=(1, 2), keepdim=True, dtype=dtype)
        return grad.sum(**places), (grad * self.wide).sum(**places)

    def gradient(self, grad: Tensor, factor: Tensor,
                 through: Tensor) -> Tensor:
        grad = grad.mul_(factor).add_(self.wide.mul_(through))
        return torch.ops.aten.gelu_backward(grad, self.x)


class _ByKernels:
    """The same by kernels that compute the wide tensor again."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def norms(self) -> Tensor:
        return training.norms(self.x)

    def entering(self, factor: Tensor, beta: Tensor) -> Tensor:
        return training.affine(self.x, factor, beta)

    def sums(self, grad: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return training.sums(self.x, grad)

    def gradient(self, grad: Tensor, factor: Tensor,
                 through: Tensor) -> Tensor:
        return training.gradient_(self.x, grad, factor, through)


def _steps(x: Tensor, *others: Tensor) -> _ByTorch | _ByKernels:
    return (_ByKernels if training_is_faster(x, *others) else _ByTorch)(x)


class _GeluGRNLinear(torch.autograd.Function):
    """Saves its input and the norms; see :func:`gelu_grn_linear`."""

    @staticmethod
    def forward(ctx, x: Tensor, gamma: Tensor, beta: Tensor, weight: Tensor,
                eps: float) -> Tensor:
        steps = _steps(x, gamma, beta)
        norm = steps.norms()
        ctx.eps = eps
        ctx.save_for_backward(x, gamma, beta, weight, norm)
        factor = gamma * (norm / (norm.mean(-1, keepdim=True) + eps)) + 1
        return linear(steps.entering(factor, beta), weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, gamma, beta, weight, norm = ctx.saved_tensors
        need_x, need_gamma, need_beta, need_weight, _ = ctx.needs_input_grad
        with torch.autocast(x.device.type, enabled=False):
            steps = _steps(x, gamma, beta)
            mean = norm.mean(-1, keepdim=True) + ctx.eps
            scale = norm / mean
            factor = gamma * scale + 1
            flat = grad.reshape(-1, grad.shape[-1]).to(x.dtype)

            grad_weight = None
            if need_weight:
                grad_weight = product_over_rows(
                    flat, steps.entering(factor, beta).flatten(0, 2)).to(
                        weight.dtype)
            grad_wide = product(flat, weight.to(x.dtype).t()).view_as(x)
            of_beta, grad_factor = steps.sums(grad_wide, norm.dtype)
            grad_beta = of_beta.sum(0, keepdim=True).to(
                beta.dtype) if need_beta else None
            grad_gamma = (grad_factor * scale).sum(0, keepdim=True).to(
                gamma.dtype) if need_gamma else None
            if not need_x:
                return None, grad_gamma, grad_beta, grad_weight, None
            # Through n itself, and through the mean of all n.
            grad_scale = grad_factor * gamma / mean
            grad_norm = grad_scale - (grad_scale * scale).mean(-1,
                                                               keepdim=True)
            # Where n is 0, so is the channel: its gradient is taken as 0.
            through = torch.where(norm > 0, grad_norm / norm, 0)
            grad_x = steps.gradient(grad_wide, factor, through)
        return grad_x, grad_gamma, grad_beta, grad_weight, None


def _affine(x: Tensor, factor: Tensor, beta: Tensor) -> Tensor:
    return torch.addcmul(beta.to(x.dtype), x, factor.to(x.dtype))


def gelu_grn_linear(x: Tensor, gamma: Tensor, beta: Tensor, weight: Tensor,
                    eps: float = 1e-6) -> Tensor:
    r"""``W GRN(GELU(x))``, computing the wide tensors again for gradients.

    Autograd would keep ``x``, ``GELU(x)`` and what enters the matrix product,
    each four times as wide as the block. Only ``x`` is kept here; the others
    cost a few passes over memory, little beside the matrix products.

    Args:
        x (Tensor): Floating ``(B, H, W, C)``.
        gamma, beta (Tensor): Of GRN, ``(1, 1, 1, C)``.
        weight (Tensor): ``W``, ``(C_out, C)``.
        eps (float): Of GRN. Defaults to 1e-6.

    Returns:
        Tensor: ``(B, H, W, C_out)``.
    """
    return _GeluGRNLinear.apply(x, gamma, beta, weight, eps)
