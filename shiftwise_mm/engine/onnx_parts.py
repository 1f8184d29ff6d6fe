"""What of a model goes into an ONNX graph, and under which names."""
from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence

import torch
import torch.nn as nn
from torch import Tensor

from .inputs import InputError
from .model_files import extractors

__all__ = ['PARTS', 'GraphPart', 'make_part', 'replace_pools']

PARTS = ('model', 'backbone')


class GraphPart(nn.Module):
    """A module of an image alone, that gives a tuple of tensors.

    Args:
        model (nn.Module): Holds the weights.
        kind (str): What it gives, a name of the methods below.
        backbone (nn.Module, optional): The backbone, for ``'backbone'``.

    Attributes:
        left_out (str): What of the model is not in it; empty for nothing.
        names (list[str]): Of the outputs of the last call.
    """

    def __init__(self, model: nn.Module, kind: str, left_out: str = '',
                 backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.model = model
        self.kind = kind
        self.left_out = left_out
        self._backbone = [backbone or getattr(model, 'backbone', None)]
        self.names: list[str] = []

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Outputs for normalised images ``(B, C, H, W)``."""
        named = list(getattr(self, self.kind)(image))
        self.names = [name for name, _ in named]
        return tuple(tensor for _, tensor in named)

    def backbone(self, image: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Outputs of the backbone, ``stage0`` and so on."""
        backbone = self._backbone[0]
        outputs = backbone(image)
        stages = getattr(backbone, 'out_indices', None)
        if isinstance(outputs, (tuple, list)) and stages is not None and \
                len(stages) == len(outputs):
            return [(f'stage{i}', out)
                    for i, out in zip(stages, outputs, strict=True)]
        return _flat('output', outputs)

    def logits(self, image: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Logits of a segmentor in the size of the image."""
        out = self.model.encode_decode(image,
                                       [dict(img_shape=image.shape[2:])])
        return [('logits', out)]

    def classes(self, image: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Logits of a classifier."""
        return _flat('logits', self.model(image, mode='tensor'))

    def dense_head(self, image: Tensor) -> Iterator[tuple[str, Tensor]]:
        """What the head of a one-stage detector gives, by level."""
        return _raw(self.model.bbox_head, self.model.extract_feat(image))

    def proposals(self, image: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Levels of the neck, and what the RPN gives on each."""
        feats = self.model.extract_feat(image)
        return [*_flat('feature', feats),
                *_raw(self.model.rpn_head, feats, 'rpn_')]


def _raw(head: nn.Module, feats: Sequence[Tensor],
         prefix: str = '') -> list[tuple[str, Tensor]]:
    """Outputs of a head, named as its loss names its arguments."""
    outputs = head(feats)
    if not isinstance(outputs, (tuple, list)):
        outputs = (outputs, )
    wanted = [name for name in inspect.signature(head.loss_by_feat).parameters
              if not name.startswith('batch_')]
    names = wanted if len(wanted) >= len(outputs) else [
        f'output{i}' for i in range(len(outputs))]
    return [pair for name, output in zip(names, outputs, strict=False)
            for pair in _flat(prefix + name, output)]


def _flat(name: str, outputs) -> list[tuple[str, Tensor]]:
    """Tensors in nested sequences, numbered."""
    if isinstance(outputs, Tensor):
        return [(name, outputs)]
    if isinstance(outputs, (tuple, list)):
        return [pair for i, output in enumerate(outputs)
                for pair in _flat(f'{name}_{i}', output)]
    if outputs is None:
        return []
    raise InputError(f'{name} of the model is a {type(outputs).__name__}, '
                     'which no graph can give')


def make_part(model: nn.Module, part: str) -> GraphPart:
    """What is exported of a model.

    Args:
        model (nn.Module): In eval mode.
        part (str): ``'backbone'``, or ``'model'``: a classifier and a
            segmentor whole, a one-stage detector up to its raw heads, a
            two-stage one up to the neck and its RPN.

    Raises:
        InputError: If there is no such part, or the model is of another
            kind; the message names it.
    """
    name = type(model).__name__
    if part not in PARTS:
        raise InputError(f'part must be one of {PARTS}, got {part!r}')
    if part == 'backbone':
        found = list(extractors(model))
        if len(found) != 1:
            raise InputError(f'{name} has {len(found)} backbones: '
                             + ', '.join(name for name, _ in found))
        return GraphPart(model, 'backbone', backbone=found[0][1])
    kinds = {base.__name__ for base in type(model).__mro__}
    if 'EncoderDecoder' in kinds:
        return GraphPart(model, 'logits')
    if 'ImageClassifier' in kinds:
        return GraphPart(model, 'classes')
    if 'SingleStageDetector' in kinds and \
            getattr(model, 'bbox_head', None) is not None:
        return GraphPart(model, 'dense_head',
                         'decoding of the boxes and suppression of doubles')
    if 'TwoStageDetector' in kinds and \
            getattr(model, 'rpn_head', None) is not None:
        return GraphPart(
            model, 'proposals', 'decoding of the proposals and '
            f'{type(getattr(model, "roi_head", None)).__name__}: regions of '
            'a number that depends on the image are no part of one graph')
    if part == 'model' and model in [module for _, module in
                                     extractors(model)]:
        return GraphPart(model, 'backbone', backbone=model)
    base = type(model).__mro__[1].__name__
    raise InputError(
        f'{name} (a {base}) cannot be exported whole: segmentors '
        '(EncoderDecoder), classifiers, one-stage detectors with a dense '
        'head and two-stage ones up to the RPN can; --part backbone exports '
        'its backbone')


class _AdaptivePool(nn.Module):
    """``nn.AdaptiveAvgPool2d`` as two matrix products.

    Exact, and for any size of the input: ONNX has no such operator.

    Args:
        size (tuple[int, int]): Of the output.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (_bins(length, out, x) for length, out in zip(
            x.shape[2:], self.size, strict=True))
        return rows @ x @ columns.t()


def _bins(length: int, out: int, like: Tensor) -> Tensor:
    """Weight of each place in each bin, ``(out, length)``."""
    place = torch.arange(length, device=like.device)
    number = torch.arange(out, device=like.device)[:, None]
    start = torch.div(number * length, out, rounding_mode='floor')
    stop = torch.div((number + 1) * length + out - 1, out,
                     rounding_mode='floor')
    inside = ((place >= start) & (place < stop)).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)


def replace_pools(model: nn.Module) -> None:
    """Puts what ONNX can express for adaptive pools, in place."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if not isinstance(child, nn.AdaptiveAvgPool2d):
                continue
            size = child.output_size
            size = (size, size) if isinstance(size, int) else tuple(size)
            if size != (1, 1) and None not in size:
                setattr(parent, name, _AdaptivePool(size))
