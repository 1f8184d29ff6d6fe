"""Normalisation and gating layers of the unirep block."""
from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from shiftwise_mm.ops.excitation import Excitation, excite

from .joining import is_plain

__all__ = [
    'LayerNorm2d', 'GRN', 'SEModule', 'NCHWtoNHWC', 'NHWCtoNCHW',
    'channel_norms'
]


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of ``(B, C, H, W)``.

    Each position is normalised by the mean and variance of its ``C`` values,
    then scaled and shifted by channel (ConvNeXt, arXiv 2201.03545).

    Args:
        num_channels (int): ``C``.
        eps (float): Added to the variance. Defaults to 1e-6.
    """

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__(num_channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias,
                         self.eps)
        return x.permute(0, 3, 1, 2)


_IN_CACHE = 1 << 21  # elements


def channel_norms(x: Tensor) -> Tensor:
    """Euclidean norm of each channel of ``(B, H, W, C)``: ``(B, 1, 1, C)``.

    In float32 for half precision, whose range squares leave.
    """
    low = x.dtype in (torch.float16, torch.bfloat16)
    # Pieces would be fixed in a trace, whose sizes may be free.
    traced = torch.jit.is_tracing() or torch.compiler.is_exporting()
    if traced or x.device.type != 'cpu' or (
            torch.is_grad_enabled() and x.requires_grad):
        return torch.linalg.vector_norm(
            x, dim=(1, 2), keepdim=True,
            dtype=torch.float32 if low else None)
    # torch's norm over any dimensions but the last is several times slower
    # on CPUs (its gradient is not infinite at 0).
    images = x.flatten(1, 2)
    if x.numel() <= _IN_CACHE:
        squares = _squares(images, low)
    else:
        rows = max(_IN_CACHE // (2 * x.shape[3]), 1)
        squares = torch.stack([
            sum(_squares(part, low) for part in image.split(rows))
            for image in images])
    return squares.sqrt_()[:, None, None]


def _squares(x: Tensor, low: bool) -> Tensor:
    """Sums of squares over the last dimension but one."""
    x = x.float() if low else x
    return torch.linalg.vecdot(x, x, dim=-2)


class GRN(nn.Module):
    r"""Global response normalisation of ``(B, H, W, C)``.

    .. math::
        g_c = \lVert x_{\cdot\cdot c} \rVert_2, \quad
        y = x \left(1 + \gamma_c \frac{g_c}{\bar g + \epsilon}\right)
        + \beta_c

    Source: ConvNeXt V2 (arXiv 2301.00808), as UniRepLKNet writes it.

    Args:
        num_channels (int): ``C``.
        eps (float): Added to the mean of the norms. Defaults to 1e-6.
        bias (bool): Whether there is a ``beta``. Defaults to True.
    """

    def __init__(self, num_channels: int, eps: float = 1e-6,
                 bias: bool = True) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, num_channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, num_channels)) \
            if bias else None
        self.eps = eps

    def factor(self, x: Tensor) -> Tensor:
        r""":math:`1 + \gamma_c g_c / (\bar g + \epsilon)`: (B, 1, 1, C)."""
        norm = channel_norms(x)
        scale = norm / (norm.mean(-1, keepdim=True) + self.eps)
        return (self.gamma * scale + 1).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        # One pass over x: it is the widest tensor of the block.
        if self.beta is None:
            return x * self.factor(x)
        return torch.addcmul(self.beta.to(x.dtype), x, self.factor(x))

    def forward_(self, x: Tensor) -> Tensor:
        """The same in the memory of ``x``, without gradients."""
        x.mul_(self.factor(x))
        return x if self.beta is None else x.add_(self.beta)


class SEModule(nn.Module):
    """Squeeze and excitation of ``(B, C, H, W)`` (arXiv 1709.01507).

    The channel means go through two 1x1 convolutions with a ReLU between and
    a sigmoid behind; the result scales the channels.

    Args:
        num_channels (int): ``C``.
        num_hidden (int): Channels between the two convolutions.
    """

    def __init__(self, num_channels: int, num_hidden: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(num_channels, num_hidden, 1)
        self.up = nn.Conv2d(num_hidden, num_channels, 1)

    def weights(self) -> Excitation:
        """Parameters of both convolutions."""
        down, up = self.down, self.up
        return Excitation(down.weight, down.bias, up.weight, up.bias)

    @property
    def joined(self) -> bool:
        """Whether nobody would miss the calls of the convolutions."""
        return is_plain(self.down, nn.Conv2d) and is_plain(self.up, nn.Conv2d)

    def forward(self, x: Tensor) -> Tensor:
        if self.joined:
            return excite(x, self.weights())
        hidden = F.relu(self.down(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.up(hidden))


class NCHWtoNHWC(nn.Module):
    """``(B, C, H, W)`` as ``(B, H, W, C)``, contiguous.

    A matrix product of a permuted view takes up to twice as long.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).contiguous()


class NHWCtoNCHW(nn.Module):
    """``(B, H, W, C)`` as ``(B, C, H, W)``."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)
