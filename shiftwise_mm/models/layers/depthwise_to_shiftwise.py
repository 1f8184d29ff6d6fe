"""A ``conv_cfg`` for the depthwise convolutions of a network alone."""
from __future__ import annotations

import torch.nn as nn

from shiftwise_mm.registry import MODELS

from .shiftwise_conv2d import ShiftWiseConv2d

__all__ = ['DepthwiseToShiftWise']


@MODELS.register_module()
def DepthwiseToShiftWise(  # noqa: N802  stands where a class of layers does
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *args,
        large_kernel: int = 51,
        small_kernel: int = 3,
        num_paths: int = 1,
        num_reps: int = 1,
        ghost_ratio: float = 0.,
        norm_cfg: dict | None = dict(type='BN'),
        form: str = 'auto',
        deploy: bool = False,
        **kwargs) -> nn.Conv2d | ShiftWiseConv2d:
    """A shift-wise layer for a depthwise convolution, else ``nn.Conv2d``.

    For networks whose ``conv_cfg`` builds all of their convolutions, of which
    :class:`ShiftWiseConv2d` takes only some: those that are depthwise, keep
    the size and see more than one place. These become a
    :class:`ShiftWiseConv2d` of ``large_kernel``; the others stay as they are.

    Args:
        in_channels, out_channels, kernel_size, args, kwargs: What the network
            asks for, as of ``nn.Conv2d``.
        large_kernel (int): The large kernel ``M`` instead of ``kernel_size``.
            Defaults to 51.
        small_kernel, num_paths, num_reps, ghost_ratio, norm_cfg, form, deploy:
            As of :class:`ShiftWiseConv2d`.

    Raises:
        TypeError, ValueError: If an argument is not allowed.
    """
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, *args, **kwargs)
    size = conv.kernel_size[0]
    keeps_size = conv.stride == (1, 1) and conv.dilation == (1, 1) and \
        conv.padding in ('same', (size // 2, size // 2))
    if conv.groups == in_channels == out_channels > 1 and keeps_size \
            and conv.kernel_size == (size, size) and size > 1:
        return ShiftWiseConv2d(
            in_channels, kernel_size=large_kernel, bias=conv.bias is not None,
            small_kernel=small_kernel, num_paths=num_paths, num_reps=num_reps,
            ghost_ratio=ghost_ratio, norm_cfg=norm_cfg, form=form,
            deploy=deploy)
    return conv
