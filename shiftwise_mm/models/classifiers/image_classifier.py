"""A classifier of images in plain mmengine."""
from __future__ import annotations

from collections.abc import Sequence

import torch.nn as nn
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor

from shiftwise_mm.registry import MODELS

__all__ = ['ImageClassifier']

_MODES = ('tensor', 'loss', 'predict')


@MODELS.register_module()
class ImageClassifier(BaseModel):
    """A backbone and a head, used like mmpretrain's class of this name.

    Args:
        backbone (dict): Gives a tuple of feature maps.
        head (dict): Has ``forward(feats)``, ``loss(feats, data_samples)`` and
            ``predict(feats, data_samples)``, as
            :class:`~shiftwise_mm.models.ShiftWiseClsHead`.
        data_preprocessor (dict | nn.Module, optional): Normalises and stacks
            the images, such as ``mmengine.ImgDataPreprocessor``.
        init_cfg (dict, optional): Initialisation, as of ``BaseModule``.
    """

    def __init__(self,
                 backbone: dict,
                 head: dict,
                 data_preprocessor: dict | nn.Module | None = None,
                 init_cfg: dict | None = None) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = MODELS.build(backbone)
        self.head = MODELS.build(head)

    def extract_feat(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Outputs of the backbone for normalised images ``(B, 3, H, W)``."""
        return self.backbone(inputs)

    def forward(
        self,
        inputs: Tensor,
        data_samples: Sequence[BaseDataElement] | None = None,
        mode: str = 'tensor'
    ) -> Tensor | dict[str, Tensor] | list[BaseDataElement]:
        """Runs the network.

        Args:
            inputs (Tensor): Normalised images ``(B, 3, H, W)``.
            data_samples (Sequence[BaseDataElement], optional): One an image,
                with ``gt_label`` if ``mode='loss'``.
            mode (str): ``'tensor'`` for logits ``(B, num_classes)``,
                ``'loss'`` for a dict of losses, ``'predict'`` for the samples
                with ``pred_score`` and ``pred_label``.

        Raises:
            ValueError: If the mode is unknown, or samples are missing.
        """
        if mode not in _MODES:
            raise ValueError(f'mode must be one of {_MODES}, got {mode!r}')
        if mode == 'loss' and data_samples is None:
            raise ValueError("mode='loss' needs data_samples, got None")
        feats = self.extract_feat(inputs)
        if mode == 'tensor':
            return self.head(feats)
        return getattr(self.head, mode)(feats, data_samples)
