"""Accuracy of a classifier."""
from __future__ import annotations

from collections.abc import Sequence

from mmengine.evaluator import BaseMetric

from shiftwise_mm.datasets import DataError
from shiftwise_mm.ops.spec import check_int
from shiftwise_mm.registry import METRICS

__all__ = ['TopKAccuracy']


@METRICS.register_module()
class TopKAccuracy(BaseMetric):
    """Share of the images whose class is among the ``k`` best, in percent.

    Reported as ``accuracy/top1``, ``accuracy/top5``, like mmpretrain's
    ``Accuracy``. Samples hold ``pred_score`` (num_classes,) and ``gt_label``
    (1,).

    Args:
        topk (int | Sequence[int]): The numbers ``k``. Defaults to (1, 5).
        collect_device (str), prefix (str), collect_dir (str): As of
            ``BaseMetric``.

    Raises:
        TypeError, ValueError: If ``topk`` is not allowed.
    """

    default_prefix = 'accuracy'

    def __init__(self,
                 topk: int | Sequence[int] = (1, 5),
                 collect_device: str = 'cpu',
                 prefix: str | None = None,
                 collect_dir: str | None = None) -> None:
        super().__init__(collect_device, prefix, collect_dir)
        numbers = topk if isinstance(topk, Sequence) else (topk, )
        if not numbers:
            raise ValueError('topk must hold at least one number, got '
                             f'{topk!r}')
        self.topk = tuple(check_int('topk', k, 1) for k in numbers)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Notes for each sample and ``k`` whether it is a hit.

        Raises:
            DataError: If there are fewer classes than ``k``, or the data set
                has another number of classes than the model.
        """
        for sample in data_samples:
            scores = sample['pred_score']
            self._check_classes(len(scores))
            hits = scores.topk(max(self.topk)).indices == sample['gt_label']
            self.results.append([bool(hits[:k].any()) for k in self.topk])

    def _check_classes(self, count: int) -> None:
        if max(self.topk) > count:
            raise DataError(f'topk={max(self.topk)} needs at least as many '
                            f'classes, the model has {count}')
        classes = (self.dataset_meta or {}).get('classes')
        if classes is not None and len(classes) != count:
            raise DataError(
                f'the data set has {len(classes)} classes, the model {count}: '
                'labels would not mean the same (for a part of the classes '
                "give the data set all names in metainfo['classes'])")

    def compute_metrics(self, results: list[list[bool]]) -> dict[str, float]:
        """Percent of hits for each ``k``."""
        return {
            f'top{k}': 100. * sum(column) / len(results)
            for k, column in zip(self.topk, zip(*results, strict=True),
                                 strict=True)
        }
