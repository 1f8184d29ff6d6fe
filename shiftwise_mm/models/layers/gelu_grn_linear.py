"""The wide half of the unirep block, which keeps one wide tensor."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from shiftwise_mm.ops.linear import linear, product

from .norm import channel_norms

__all__ = ['gelu_grn_linear']


class _GeluGRNLinear(torch.autograd.Function):
    """Saves its input only; see :func:`gelu_grn_linear`."""

    @staticmethod
    def forward(ctx, x: Tensor, gamma: Tensor, beta: Tensor, weight: Tensor,
                eps: float) -> Tensor:
        ctx.eps = eps
        ctx.save_for_backward(x, gamma, beta, weight)
        wide = F.gelu(x)
        norm = channel_norms(wide)
        factor = gamma * (norm / (norm.mean(-1, keepdim=True) + eps)) + 1
        return linear(_affine(wide, factor, beta), weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, gamma, beta, weight = ctx.saved_tensors
        need_x, need_gamma, need_beta, need_weight, _ = ctx.needs_input_grad
        with torch.autocast(x.device.type, enabled=False):
            wide = F.gelu(x)
            norm = channel_norms(wide)  # n
            mean = norm.mean(-1, keepdim=True) + ctx.eps
            scale = norm / mean
            factor = gamma * scale + 1
            flat = grad.reshape(-1, grad.shape[-1]).to(x.dtype)

            grad_weight = None
            if need_weight:
                entering = _affine(wide, factor, beta).flatten(0, 2)
                grad_weight = product(flat.t(), entering.t()).to(
                    weight.dtype)
                del entering
            grad_wide = product(flat, weight.to(x.dtype).t()).view_as(wide)
            grad_beta = grad_wide.sum((0, 1, 2), dtype=beta.dtype).view_as(
                beta) if need_beta else None
            grad_factor = (grad_wide * wide).sum((1, 2), keepdim=True,
                                                 dtype=norm.dtype)
            grad_gamma = (grad_factor * scale).sum(0, keepdim=True).to(
                gamma.dtype) if need_gamma else None
            if not need_x:
                return None, grad_gamma, grad_beta, grad_weight, None
            # Through n itself, and through the mean of all n.
            grad_scale = grad_factor * gamma / mean
            grad_norm = grad_scale - (grad_scale * scale).mean(-1,
                                                               keepdim=True)
            # Where n is 0, so is the channel: its gradient is taken as 0.
            grad_norm = torch.where(norm > 0, grad_norm / norm, 0)
            grad_wide = grad_wide.mul_(factor).add_(wide.mul_(grad_norm))
            grad_x = torch.ops.aten.gelu_backward(grad_wide, x)
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
