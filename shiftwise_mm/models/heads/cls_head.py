"""The classifier head of the published networks."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn as nn
from mmengine.model import BaseModule
from mmengine.structures import BaseDataElement
from torch import Tensor

from shiftwise_mm.ops.spec import check_int
from shiftwise_mm.registry import MODELS

__all__ = ['ShiftWiseClsHead']


@MODELS.register_module()
class ShiftWiseClsHead(BaseModule):
    r"""Global average pool, layer norm and a linear layer, as published.

    .. math::
        \mathrm{logits} = W\,\mathrm{LN}\Big(\frac{1}{HW}
        \sum_{h,w} x_{\cdot hw}\Big) + b

    with ``x`` the output of the last stage, which must not be normalised
    before: the backbone takes ``norm_out=False``. The same head stands on
    ConvNeXt (arXiv 2201.03545), SLaK, UniRepLKNet and ShiftWiseNet.

    Args:
        num_classes (int): Number of classes.
        in_channels (int): Channels ``C`` of the last stage.
        loss (dict): A module of ``(logits, labels)`` that gives a scalar.
            Defaults to cross-entropy with label smoothing 0.1, as published.
        init_cfg (dict, optional): Initialisation, as of ``BaseModule``;
            without it weights are truncated normal with std 0.02.

    Raises:
        TypeError, ValueError: If an argument is not allowed.
    """

    def __init__(self,
                 num_classes: int,
                 in_channels: int,
                 loss: dict = dict(
                     type='torch.nn.CrossEntropyLoss', label_smoothing=0.1),
                 init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        check_int('num_classes', num_classes, 1)
        check_int('in_channels', in_channels, 1)
        self.norm = nn.LayerNorm(in_channels, eps=1e-6)
        self.fc = nn.Linear(in_channels, num_classes)
        nn.init.trunc_normal_(self.fc.weight, std=.02)
        nn.init.zeros_(self.fc.bias)
        self.loss_module = MODELS.build(loss)

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        """Logits ``(B, num_classes)`` of the last of ``feats``.

        Args:
            feats (Sequence[Tensor]): Outputs of a backbone; the last is
                ``(B, C, H, W)``.

        Raises:
            ValueError: If the last has another shape.
        """
        x = feats[-1]
        if x.ndim != 4 or x.shape[1] != self.fc.in_features:
            raise ValueError(
                'the last of feats must be (B, C, H, W) with C = in_channels '
                f'= {self.fc.in_features}, got {tuple(x.shape)}')
        return self.fc(self.norm(x.mean((2, 3))))

    def loss(self, feats: Sequence[Tensor],
             data_samples: Sequence[BaseDataElement]) -> dict[str, Tensor]:
        """The loss.

        Args:
            feats (Sequence[Tensor]): Outputs of a backbone.
            data_samples (Sequence[BaseDataElement]): Each has ``gt_label``
                (int64, shape (1,)), or ``gt_score`` (float, shape
                (num_classes,)), as mixup and CutMix make it in mmpretrain.
        """
        if all('gt_score' in sample for sample in data_samples):
            target = torch.stack([sample.gt_score for sample in data_samples])
        else:
            target = torch.cat([sample.gt_label for sample in data_samples])
        return dict(loss=self.loss_module(self(feats), target))

    def predict(
        self,
        feats: Sequence[Tensor],
        data_samples: Sequence[BaseDataElement] | None = None
    ) -> list[BaseDataElement]:
        """Adds predictions to the samples, or to new ones if None are given.

        Each gets ``pred_score``, the softmax of its logits, float of shape
        (num_classes,), and ``pred_label``, the largest, int64 of shape (1,).
        """
        scores = self(feats).softmax(1)
        if data_samples is None:
            data_samples = [BaseDataElement() for _ in scores]
        for sample, score in zip(data_samples, scores, strict=True):
            sample.pred_score = score
            sample.pred_label = score.argmax(0, keepdim=True)
        return list(data_samples)
