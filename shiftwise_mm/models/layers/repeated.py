"""Calls of deployed unirep blocks that are like earlier ones: prepared once.

A block in inference is four kernels. Between them it asks modules for hooks
and tensors for what they are: 0.1 ms of Python, and several times that behind
a matrix product, which leaves nothing of it in a cache.
"""
from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn as nn
from torch import Tensor

from shiftwise_mm.ops.gelu_grn import gelu_grn_, gelu_grn_is_faster
from shiftwise_mm.ops.linear import inference_linear_onto, inference_product
from shiftwise_mm.ops.masks import is_plain_inference
from shiftwise_mm.ops.prepared import input_case, may_repeat
from shiftwise_mm.ops.strip_pair import PreparedStrips

from .joining import Unchanged, is_plain
from .shiftwise_conv2d import ShiftWiseConv2d

if TYPE_CHECKING:
    from .blocks import UniRepBlock

__all__ = ['RepeatedCalls']

_KEPT = 100  # shapes


class RepeatedCalls:
    """What a deployed block keeps of its calls in inference."""

    def __init__(self) -> None:
        self._calls: dict[tuple, _Call] = {}

    def __getstate__(self) -> dict:
        """Copies and files have none: launches belong to one runtime."""
        return {'_calls': {}}

    def find(self, x: Tensor) -> _Call | None:
        """What computes the block for ``x``, if nothing has changed."""
        if not self._calls or not is_plain_inference(x):
            return None
        call = self._calls.get(input_case(x))
        return call if call is not None and call.fits(x) else None

    def keep(self, block: UniRepBlock, x: Tensor) -> None:
        """Prepares the next call like the one with ``x`` that just was.

        Only of blocks whose parts are computed together, and where the layer
        and GELU with GRN are a launch each.
        """
        mixer, first = block.mixer, block.pwconv1[1]
        if not (is_plain(mixer, ShiftWiseConv2d)
                and is_plain(block.norm, nn.Identity)
                and first.bias is not None
                and is_plain_inference(x)
                and gelu_grn_is_faster(x.permute(0, 2, 3, 1),
                                       first.out_features)):
            return
        strips = mixer.prepared(x)
        if strips is not None:
            if len(self._calls) == _KEPT:
                self._calls.clear()
            self._calls[input_case(x)] = _Call(block, strips)


class _Call:
    """A block for inputs of one shape, as long as it :meth:`fits`."""

    def __init__(self, block: UniRepBlock, strips: PreparedStrips) -> None:
        mixer, se, first, act, second = (
            block.mixer, block.se, block.pwconv1, block.act, block.pwconv2)
        self._strips = strips
        self._gelu, self._grn = act
        self._first = first[1].weight, first[1].bias
        self._second = second[0].weight, second[0].bias
        self._gamma = self._grn.gamma
        self._unchanged = Unchanged(
            [mixer, block.norm, se, se.down, se.up, first, *first, act, *act,
             second, *second, block.drop_path],
            [block, mixer, se, first, act, second],
            [mixer.strip_h, mixer.strip_v, se.down, se.up, first[1],
             self._grn, second[0]])

    def fits(self, x: Tensor) -> bool:
        """Whether the block would do this once more."""
        return (x.is_contiguous(memory_format=torch.channels_last)
                and self._unchanged and self._strips.holds()
                and self._gelu.approximate == 'none'
                and self._grn.beta is None and may_repeat()
                and torch.backends.mkldnn.enabled)

    def __call__(self, x: Tensor) -> Tensor:
        y = self._strips.launch(x).permute(0, 2, 3, 1).contiguous()
        weight, bias = self._first
        y = inference_product(y, weight)
        y = gelu_grn_(y, bias, self._gamma, self._grn.eps)
        out = inference_linear_onto(x.permute(0, 2, 3, 1), y, *self._second)
        return out.permute(0, 3, 1, 2)
