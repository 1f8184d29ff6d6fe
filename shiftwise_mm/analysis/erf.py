"""Effective receptive fields, as RepLKNet's paper measures them.

How much each pixel of the input contributes to the centre of a feature map:
the gradient of that point, positive parts only. Source: appendix of RepLKNet,
arXiv 2203.06717, and its published scripts, by which SLaK and UniRepLKNet
made their figures as well.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

__all__ = ['THRESHOLDS', 'Field', 'Square', 'area_squares', 'contributions',
           'effective_field', 'log_scores']

THRESHOLDS = (.2, .3, .5, .99)
"""Shares of the published tables."""


@dataclass(frozen=True)
class Field:
    """Contributions to the centre of a feature map, averaged over images.

    Attributes:
        scores (np.ndarray): float64 (H, W), not negative.
        images (int): How many images went in.
        left_out (int): How many gave a gradient that is not finite.
        map_size (tuple[int, int]): Height and width of the feature map.
    """

    scores: np.ndarray
    images: int
    left_out: int
    map_size: tuple[int, int]


@dataclass(frozen=True)
class Square:
    """The smallest square around the centre that holds a share.

    Attributes:
        side (int): In pixels, odd unless it is the whole input.
        area_ratio (float): Its area over that of the input.
    """

    side: int
    area_ratio: float


def contributions(network: nn.Module, image: Tensor,
                  stage: int = -1) -> tuple[Tensor, tuple[int, int]]:
    r"""What each pixel contributes to the centre of a feature map.

    With ``y`` the map and ``(i, j)`` its centre, ``(H' // 2, W' // 2)``,

    .. math::
        s[h,w] = \sum_{b,c} \max\left(0, \frac{\partial}{\partial x[b,c,h,w]}
        \sum_{b',d} \max(0, y[b',d,i,j])\right)

    Args:
        network (nn.Module): Gives one feature map (B, D, H', W') or a
            sequence of them; in evaluation mode.
        image (Tensor): (B, C, H, W), normalised as the network wants it.
        stage (int): Which of the maps. Defaults to the last.

    Returns:
        tuple: The scores (H, W), and the size of the map.

    Raises:
        ValueError: If there is no such map, or it is none.
    """
    image = image.detach().clone().requires_grad_()
    with torch.enable_grad():
        maps = network(image)
        maps = (maps, ) if isinstance(maps, Tensor) else tuple(maps)
        if not -len(maps) <= stage < len(maps):
            raise ValueError(f'stage must be in {-len(maps)}..{len(maps) - 1},'
                             f' as {type(network).__name__} gives {len(maps)} '
                             f'feature maps, got {stage}')
        y = maps[stage]
        if y.dim() != 4:
            raise ValueError(f'{type(network).__name__} gives a tensor of '
                             f'shape {tuple(y.shape)}, not a feature map '
                             '(B, D, H, W)')
        size = y.shape[2], y.shape[3]
        centre = y[:, :, size[0] // 2, size[1] // 2].relu().sum()
        gradient, = torch.autograd.grad(centre, image)
    return gradient.relu().sum((0, 1)), size


def effective_field(network: nn.Module, images: Iterable[Tensor],
                    stage: int = -1) -> Field:
    """The mean of :func:`contributions` over images.

    Images whose scores are not finite are left out, as in the published
    script. The network runs in evaluation mode and without gradients of its
    parameters; on return it is as it was.

    Args:
        network (nn.Module): See :func:`contributions`.
        images (Iterable[Tensor]): Of one size, each (B, C, H, W).
        stage (int): Which of its feature maps. Defaults to the last.

    Raises:
        ValueError: If no image is left, none contributes, or ``stage`` is
            out of its range.
    """
    modes = [(module, module.training) for module in network.modules()]
    trained = [p for p in network.parameters() if p.requires_grad]
    network.eval()
    total, count, left_out, size = None, 0, 0, (0, 0)
    try:
        for parameter in trained:
            parameter.requires_grad_(False)  # their gradients cost the most
        for image in images:
            scores, size = contributions(network, image, stage)
            if not torch.isfinite(scores).all():
                left_out += 1
                continue
            scores = scores.double().cpu().numpy()
            total = scores if total is None else total + scores
            count += 1
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for module, mode in modes:
            module.training = mode
    if total is None:
        raise ValueError('no image to measure on' if not left_out else
                         f'the gradients of all {left_out} images are not '
                         'finite')
    if not total.any():
        raise ValueError('no pixel contributes to the centre: its features '
                         'are not positive in any channel')
    return Field(total / count, count, left_out, size)


def log_scores(scores: np.ndarray) -> np.ndarray:
    r"""``log10(s + 1)``, divided by its maximum: what is drawn and summed.

    Args:
        scores (np.ndarray): Not negative, not all zero.
    """
    logs = np.log10(np.asarray(scores, np.float64) + 1)
    return logs / logs.max()


def area_squares(scores: np.ndarray,
                 thresholds: Sequence[float] = THRESHOLDS
                 ) -> dict[float, Square]:
    """The published figures: which area holds 20, 30, 50 and 99 percent.

    For each threshold the smallest square of an odd side, 3 pixels at least,
    around ``(H // 2, W // 2)`` that holds more than that share of the sum of
    :func:`log_scores`; the whole input where no square within it does.

    Args:
        scores (np.ndarray): (H, W), not negative, not all zero.
        thresholds (Sequence[float]): Shares, each in (0, 1). Defaults to
            :data:`THRESHOLDS`.

    Raises:
        ValueError: If a threshold is out of its range.
    """
    for threshold in thresholds:
        if not 0 < threshold < 1:
            raise ValueError('thresholds must lie between 0 and 1, got '
                             f'{threshold}')
    height, width = scores.shape
    rows, columns = (np.abs(np.arange(n) - n // 2) for n in (height, width))
    ring = np.maximum(rows[:, None], columns)  # half the side
    held = np.bincount(ring.reshape(-1), log_scores(scores).reshape(-1))
    shares = held.cumsum() / held.sum()
    found = {}
    for threshold in thresholds:
        half = max(int(np.argmax(shares > threshold)), 1)
        side = 2 * half + 1
        inside = side <= min(height, width)
        found[threshold] = Square(side, side / height * side / width) \
            if inside else Square(max(height, width), 1.)
    return found
