"""Layer norm and GELU of a stem, in inference on CPUs."""
from __future__ import annotations

import torch
from torch import Tensor

from shiftwise_mm.kernels import norm_gelu as kernels
from shiftwise_mm.kernels.capability import favours_kernels

from .masks import is_plain_inference

__all__ = ['norm_gelu_', 'norm_gelu_is_faster']

_LEAST = 400_000  # elements, as measured


def norm_gelu_is_faster(x: Tensor) -> bool:
    """Whether :func:`norm_gelu_` takes ``x`` and is worth its launch here.

    On CPUs of which ``favours_kernels`` is true.
    """
    return (favours_kernels() and is_plain_inference(x)
            and x.dtype == torch.float32 and x.numel() >= _LEAST
            and kernels.reason(x) is None)


def norm_gelu_(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    r"""Layer norm over the channels, then GELU (exact), in place.

    .. math::
        y = \mathrm{GELU}\left(w \frac{x - \bar x}{\sqrt{\mathrm{var}(x) +
        \epsilon}} + b\right)

    with mean and variance of the channels of each place; without gradients.

    Args:
        x (Tensor): float32 ``(B, C, H, W)``, of which
            :func:`norm_gelu_is_faster` is true and which nobody else reads.
        weight, bias (Tensor): float32 ``(C,)``.
        eps (float): Added to the variance.

    Returns:
        Tensor: ``x``.
    """
    return kernels.norm_gelu_(x, weight, bias, eps)
