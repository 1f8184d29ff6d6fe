"""Residual blocks around the shift-wise convolution."""
from __future__ import annotations

import torch
import torch.nn as nn
from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from torch import Tensor

from .norm import GRN, NCHWtoNHWC, NHWCtoNCHW, SEModule
from .shiftwise_conv2d import ShiftWiseConv2d

__all__ = ['UniRepBlock']


class UniRepBlock(BaseModule):
    r"""Residual block of the unirep style (published ``ShiftWise_v2``).

    .. math::
        x + \mathrm{drop}(\gamma \cdot \mathrm{BN}(W_2\,\mathrm{GRN}(
        \mathrm{GELU}(W_1\,\mathrm{SE}(\mathrm{BN}(\mathrm{SW}(x)))))))

    with a hidden width of four times the channels and an SE layer with a
    quarter of them.

    Args:
        channels (int): ``C``.
        kernel_size (int): Large kernel ``M``.
        small_kernel (int): ``N``.
        num_paths (int): ``P``.
        num_reps (int): ``R``.
        ghost_ratio (float): Share of the channels that pass unchanged.
        drop_path_rate (float): Probability to drop the branch.
        layer_scale_init_value (float, optional): Start of ``gamma``; no layer
            scale if None or not positive.
        norm_cfg (dict): Norm layers.
        form (str): Form of the shift-wise convolution.
        deploy (bool): Whether to build the deployed convolution.

    Shape:
        ``(B, C, H, W)`` in, the same out.
    """

    def __init__(self, channels: int, *, kernel_size: int, small_kernel: int,
                 num_paths: int, num_reps: int, ghost_ratio: float,
                 drop_path_rate: float,
                 layer_scale_init_value: float | None, norm_cfg: dict,
                 form: str, deploy: bool) -> None:
        super().__init__()
        hidden = 4 * channels
        self.large_kernel = ShiftWiseConv2d(
            channels,
            kernel_size=kernel_size,
            bias=False,
            small_kernel=small_kernel,
            num_paths=num_paths,
            num_reps=num_reps,
            ghost_ratio=ghost_ratio,
            norm_cfg=norm_cfg,
            form=form,
            deploy=deploy)
        self.norm = build_norm_layer(norm_cfg, channels)[1]
        self.se = SEModule(channels, channels // 4)
        self.pwconv1 = nn.Sequential(NCHWtoNHWC(),
                                     nn.Linear(channels, hidden))
        self.act = nn.Sequential(nn.GELU(), GRN(hidden))
        self.pwconv2 = nn.Sequential(
            nn.Linear(hidden, channels, bias=False), NHWCtoNCHW(),
            build_norm_layer(norm_cfg, channels)[1])
        scaled = layer_scale_init_value is not None \
            and layer_scale_init_value > 0
        self.gamma = nn.Parameter(
            torch.full((channels, ), float(layer_scale_init_value))
        ) if scaled else None
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        y = self.se(self.norm(self.large_kernel(x)))
        y = self.pwconv2(self.act(self.pwconv1(y)))
        if self.gamma is not None:
            y = y * self.gamma.view(-1, 1, 1)
        return x + self.drop_path(y)
