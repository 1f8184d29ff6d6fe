"""Operators that torch knows: compilers, counters and autocast see them."""
from __future__ import annotations

from collections.abc import Callable

import torch

__all__ = ['operator']


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
