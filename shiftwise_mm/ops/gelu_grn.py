"""GELU and GRN by kernels of the CPU, in inference and in training."""
from __future__ import annotations

import torch
from torch import Tensor

from shiftwise_mm.kernels import gelu_grn as kernels
from shiftwise_mm.kernels import gelu_grn_training as training
from shiftwise_mm.kernels.capability import favours_kernels

from .masks import is_plain_inference

__all__ = ['gelu_grn_', 'gelu_grn_is_faster', 'training',
           'training_is_faster']

_LEAST = 400_000  # elements, as measured


def gelu_grn_is_faster(x: Tensor, channels: int) -> bool:
    """Whether :func:`gelu_grn_` takes what a linear layer with so many
    outputs makes of ``x``, and is worth its launch here.

    On CPUs of which ``favours_kernels`` is true.
    """
    elements = x.numel() // x.shape[-1] * channels
    return (favours_kernels() and elements >= _LEAST
            and x.dtype == torch.float32 and is_plain_inference(x)
            and kernels.reason(elements, channels, x.device) is None)


def gelu_grn_(x: Tensor, bias: Tensor, gamma: Tensor, eps: float) -> Tensor:
    r"""A bias, GELU (exact), then global response normalisation, in place.

    .. math::
        y = \mathrm{GELU}(x + b), \quad z_c = y_c \left(1 + \gamma_c
        \frac{\lVert y_c \rVert_2}{\bar g + \epsilon}\right)

    with the norms over the places of an image, :math:`\bar g` their mean over
    its channels; without gradients. Source: ConvNeXt V2 (arXiv 2301.00808).

    Args:
        x (Tensor): float32 ``(B, H, W, C)``, fresh from a product of
            which :func:`gelu_grn_is_faster` is true.
        bias, gamma (Tensor): float32, ``C`` elements.
        eps (float): Added to the mean of the norms.

    Returns:
        Tensor: ``x``.
    """
    return kernels.gelu_grn_(x, bias, gamma, eps)


def training_is_faster(*tensors: Tensor) -> bool:
    """Whether :mod:`~shiftwise_mm.kernels.gelu_grn_training` takes tensors
    such as those of a training step, without autograd, and is worth it here.

    Args:
        tensors (Tensor): The first ``(B, H, W, C)``; all that it is given.
    """
    wide = tensors[0]
    return (favours_kernels() and wide.numel() >= _LEAST
            and all(t.dtype == torch.float32 and t.is_contiguous()
                    for t in tensors)
            and is_plain_inference(*tensors) and training.reason(
                wide.numel(), wide.shape[-1], wide.device) is None)
