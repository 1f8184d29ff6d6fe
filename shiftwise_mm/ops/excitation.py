"""Squeeze and excitation, as an operator that others may take in."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from shiftwise_mm.kernels.channel_launch import Excitation

__all__ = ['Excitation', 'excite']


def excite(x: Tensor, weights: Excitation) -> Tensor:
    r"""Scales the channels of an image by what follows from their means.

    .. math::
        z_c = x_c\ \sigma\big(U\,\mathrm{ReLU}(D \bar x + d) + u\big)_c

    Source: squeeze and excitation (arXiv 1709.01507).

    Args:
        x (Tensor): Floating ``(B, C, H, W)``.
        weights (Excitation): ``D``, ``d``, ``U``, ``u``.

    Returns:
        Tensor: ``(B, C, H, W)``.
    """
    # As matrix products: of one place a convolution takes longer.
    down, down_bias, up, up_bias = weights
    hidden = F.relu(F.linear(x.mean((2, 3)), down.flatten(1), down_bias))
    gate = torch.sigmoid(F.linear(hidden, up.flatten(1), up_bias))
    return x * gate[:, :, None, None]
