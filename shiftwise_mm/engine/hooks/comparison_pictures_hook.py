"""Pictures of predictions beside the ground truth."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.runner import Runner

from shiftwise_mm.engine.detections import surest_last
from shiftwise_mm.ops.spec import check_int
from shiftwise_mm.registry import HOOKS
from shiftwise_mm.stack import import_optional

__all__ = ['ComparisonPicturesHook']


@HOOKS.register_module()
class ComparisonPicturesHook(Hook):
    """Draws the first validation images: truth on the left, result right.

    Each validation overwrites the pictures of the one before, so that what
    remains is by the final weights (the averaged ones under an EMA hook). The
    runner's visualizer does the drawing, the surest detections on top.

    Args:
        out_dir (str): Folder of the pictures, relative to the work folder of
            the run. Defaults to ``'pictures'``.
        max_images (int): How many images are drawn. Defaults to 24.
        score_thr (float, optional): Detections below this score are left
            out, in [0, 1]; None for segmentors, whose predictions have no
            scores. Defaults to 0.3.

    Raises:
        TypeError, ValueError: If an argument is not allowed.
    """

    def __init__(self, out_dir: str = 'pictures', max_images: int = 24,
                 score_thr: float | None = 0.3) -> None:
        if score_thr is not None and not 0 <= score_thr <= 1:
            raise ValueError(f'score_thr must be in [0, 1], got {score_thr}')
        self.out_dir = out_dir
        self.max_images = check_int('max_images', max_images, 0)
        self.score_thr = score_thr
        self._drawn = 0

    def before_val_epoch(self, runner: Runner) -> None:
        self._drawn = 0

    def after_val_iter(self, runner: Runner, batch_idx: int,
                       data_batch: dict | None = None,
                       outputs: Sequence | None = None) -> None:
        mmcv = import_optional('mmcv', type(self).__name__)
        folder = Path(runner.work_dir, self.out_dir)
        options = {} if self.score_thr is None else dict(
            pred_score_thr=self.score_thr)
        for sample in outputs[:self.max_images - self._drawn]:
            path = Path(sample.img_path)
            runner.visualizer.add_datasample(
                path.stem,
                mmcv.imread(str(path), channel_order='rgb'),
                data_sample=surest_last(sample),
                out_file=str(folder / f'{path.stem}.jpg'),
                **options)
            self._drawn += 1
