"""Transforms that classification needs besides those of mmcv."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.structures import BaseDataElement

from shiftwise_mm.ops.spec import check_int
from shiftwise_mm.registry import TRANSFORMS
from shiftwise_mm.stack import import_optional

__all__ = ['PackClsInputs', 'ResizeShortSide']


class _Transform:
    """What a pipeline calls; mmcv's own base needs mmcv."""

    def __call__(self, results: dict) -> dict:
        return self.transform(results)


@TRANSFORMS.register_module()
class ResizeShortSide(_Transform):
    """Resizes an image so that its short side has a given length.

    As torchvision's ``Resize(size)``, with which the published figures were
    measured: the long side becomes ``int(size * long / short)`` and Pillow
    filters. ``mmcv.Resize`` rounds instead, which moves the centre crop.

    Args:
        size (int): Length of the short side in pixels.
        interpolation (str): A name of ``mmcv.imresize``. Defaults to
            ``'bicubic'``.

    Changes ``img`` (uint8, HWC) and ``img_shape``.

    Raises:
        TypeError, ValueError: If ``size`` is not a positive integer.
        ModuleNotFoundError: When called, if mmcv is not installed.
    """

    def __init__(self, size: int, interpolation: str = 'bicubic') -> None:
        self.size = check_int('size', size, 1)
        self.interpolation = interpolation

    def transform(self, results: dict) -> dict:
        mmcv = import_optional('mmcv', type(self).__name__)
        height, width = results['img'].shape[:2]
        short = min(height, width)
        shape = [int(self.size * side / short) for side in (width, height)]
        results['img'] = mmcv.imresize(
            results['img'], tuple(shape), interpolation=self.interpolation,
            backend='pillow')
        results['img_shape'] = results['img'].shape[:2]
        return results

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(size={self.size}, '
                f'interpolation={self.interpolation!r})')


@TRANSFORMS.register_module()
class PackClsInputs(_Transform):
    """Packs an image and its label for a classifier.

    Gives ``inputs``, the image as a uint8 tensor (C, H, W) in the order of
    channels that it has, and ``data_samples`` with ``gt_label`` (int64, shape
    (1,)) where there is a label.

    Args:
        meta_keys (Sequence[str]): What the sample keeps as meta information.
    """

    def __init__(
        self,
        meta_keys: Sequence[str] = ('sample_idx', 'img_path', 'ori_shape',
                                    'img_shape')
    ) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        image = np.ascontiguousarray(results['img'].transpose(2, 0, 1))
        sample = BaseDataElement(metainfo={
            key: results[key] for key in self.meta_keys if key in results})
        if 'gt_label' in results:
            sample.gt_label = torch.tensor([results['gt_label']])
        return dict(inputs=torch.from_numpy(image), data_samples=sample)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(meta_keys={self.meta_keys})'
