"""Batch-norms that are added up, by one kernel of the CPU in training."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from shiftwise_mm.kernels import batch_norms as kernels
from shiftwise_mm.kernels.capability import favours_kernels

from .masks import is_plain_inference

__all__ = ['summed_batch_norms', 'summed_batch_norms_are_faster']

_LEAST = 200_000  # elements of each, as measured


def summed_batch_norms_are_faster(*ys: Tensor) -> bool:
    """Whether :func:`summed_batch_norms` takes them and is worth it here.

    On CPUs of which ``favours_kernels`` is true.
    """
    with torch.no_grad():  # autograd knows of this one
        return (favours_kernels() and len(ys) == kernels.NORMS
                and ys[0].numel() >= _LEAST
                and all(y.dtype == torch.float32 for y in ys)
                and is_plain_inference(*ys)
                and kernels.reason(*ys) is None)


def _aligned(x: Tensor) -> Tensor:
    """``x`` as the kernels take it."""
    x = x.contiguous()
    return x.clone() if kernels.reason(x) else x


class _SummedBatchNorms(torch.autograd.Function):
    """Saves what enters the norms, as each of them does."""

    @staticmethod
    def forward(ctx, base: Tensor, affine: Tensor, eps: tuple[float, ...],
                *ys: Tensor) -> tuple[Tensor, Tensor]:
        affine = affine.contiguous()
        out, stats = kernels.forward(ys, _aligned(base), affine, eps)
        ctx.eps = eps
        ctx.save_for_backward(affine, stats, *ys)
        ctx.mark_non_differentiable(stats)
        return out, stats

    @staticmethod
    def backward(ctx, grad: Tensor, _):
        affine, stats, *ys = ctx.saved_tensors
        if torch.is_grad_enabled():  # gradients of these are wanted
            return _by_torch(grad, affine, ctx.eps, ys)
        grad = _aligned(grad)
        of_ys, of_affine = kernels.backward(grad, ys, affine, stats, ctx.eps)
        return grad, of_affine, None, *of_ys


def _by_torch(grad: Tensor, affine: Tensor, eps: tuple[float, ...],
              ys: list[Tensor]) -> tuple[Tensor | None, ...]:
    """What ``backward`` returns, in a graph of its own."""
    out = sum(F.batch_norm(y, None, None, weight, bias, True, eps=e)
              for y, (weight, bias), e in zip(ys, affine, eps, strict=True))
    given = [t for t in (affine, *ys) if t.requires_grad]
    found = iter(torch.autograd.grad(out, given, grad, create_graph=True))
    of_affine, *of_ys = (next(found) if t.requires_grad else None
                         for t in (affine, *ys))
    return grad, of_affine, None, *of_ys


def summed_batch_norms(base: Tensor, ys: tuple[Tensor, ...], affine: Tensor,
                       eps: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    r"""A base and batch-norms of tensors like it, added up.

    .. math::
        x + \sum_s \gamma_s \frac{y_s - \mu_s}{\sqrt{\sigma_s^2 +
        \epsilon_s}} + \beta_s

    with the mean and variance of each channel over all images and places.
    Source: batch normalisation (arXiv 1502.03167).

    Args:
        base (Tensor): f32 ``(B, C, H, W)``.
        ys (tuple[Tensor]): Three such tensors, of which
            :func:`summed_batch_norms_are_faster` is true.
        affine (Tensor): f32 ``(3, 2, C)``, weights and biases.
        eps (tuple[float]): Three.

    Returns:
        tuple[Tensor, Tensor]: ``(B, C, H, W)``; means and biased variances,
        f32 ``(3, 2, C)``, without gradient.
    """
    return _SummedBatchNorms.apply(base, affine, eps, *ys)
