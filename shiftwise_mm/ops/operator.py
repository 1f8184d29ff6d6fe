"""Operators that torch knows: compilers, counters and autocast see them."""
from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ['operator', 'as_autocast']


def operator(name: str, function: Callable) -> Callable:
    """An operator of torch that computes ``function`` on any device.

    As ``torch.library.custom_op``, which however looks for aliases among
    inputs and outputs in each call: that takes as long as some launches.

    Args:
        name (str): In the namespace of the package.
        function (Callable): With annotations; it must change none of its
            inputs and return none of them, nor a view of one.
    """
    full = f'shiftwise_mm::{name}'
    torch.library.define(
        full, torch.library.infer_schema(function, mutates_args=()))
    torch.library.impl(full, 'default', function)
    return getattr(torch.ops.shiftwise_mm, name).default


def as_autocast(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the dtype of autocast where it is on for ``x``'s device."""
    if not torch.is_autocast_enabled(x.device.type):
        return x, weight
    dtype = torch.get_autocast_dtype(x.device.type)
    return x.to(dtype), weight.to(dtype)
