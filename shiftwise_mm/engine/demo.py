"""The demo: a small detector trained on a folder in the COCO format."""
from __future__ import annotations

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.runner import Runner

from shiftwise_mm.datasets import CocoFolder
from shiftwise_mm.engine.hooks import ComparisonPicturesHook
from shiftwise_mm.ops import available_backends
from shiftwise_mm.ops.forms import FORM_NAMES
from shiftwise_mm.ops.spec import check_int

__all__ = ['BACKBONES', 'demo_config', 'image_scale', 'run_demo']

# Names of the demo's backbones and the configs behind them.
BACKBONES = {
    'shiftwise-nano':
    'shiftwise_mm::demo/rtmdet_shiftwise-nano_demo_shapes.py',
    'resnet18': 'shiftwise_mm::demo/rtmdet_resnet18_demo_shapes.py',
}
_METRICS = ('coco/bbox_mAP', 'coco/bbox_mAP_50')
_LONG_SIDE = 480  # pixels; what a CPU trains on within minutes


def image_scale(folder: CocoFolder) -> tuple[int, int]:
    """Width and height in pixels at which the demo trains on a data set.

    The median size of the training images, shrunk until its long side is at
    most 480, rounded to multiples of 8.
    """
    width, height = folder.train.median_size
    shrink = min(1., _LONG_SIDE / max(width, height))
    return tuple(max(32, round(side * shrink / 8) * 8)
                 for side in (width, height))


def demo_config(folder: CocoFolder, *, work_dir: str,
                backbone: str = 'shiftwise-nano', form: str = 'auto',
                max_iters: int | None = None,
                iters_factor: float = 1., resume: bool = False) -> Config:
    """The demo's config for a data set.

    Args:
        folder (CocoFolder): A checked data set.
        work_dir (str): Where logs, checkpoint and pictures go.
        backbone (str): A name in :data:`BACKBONES`.
        form (str): Form of the shift-wise convolution, see
            :func:`shiftwise_mm.ops.shiftwise_conv`; must be ``'auto'`` for a
            backbone that has none.
        max_iters (int, optional): Training iterations instead of those of
            the recipe.
        iters_factor (float): Factor on the iterations of the recipe, which
            suit the generated shapes. Defaults to 1.
        resume (bool): Whether to continue from the last checkpoint in
            ``work_dir``, if there is one.

    Returns:
        Config: For ``Runner.from_cfg``.

    Raises:
        ValueError: If a name is unknown, the form does not fit the backbone,
            or ``form='shift'`` could not run through Taichi here.
    """
    if backbone not in BACKBONES:
        raise ValueError(f'backbone must be one of {tuple(BACKBONES)}, got '
                         f'{backbone!r}')
    if form not in FORM_NAMES:
        raise ValueError(f'form must be one of {FORM_NAMES}, got {form!r}')
    if form != 'auto' and not backbone.startswith('shiftwise'):
        raise ValueError(f'form must be auto for backbone {backbone!r}, got '
                         f'{form!r}')
    if form == 'shift':
        why = available_backends(torch.zeros(1))['taichi']
        if why is not None:
            raise ValueError(f"form='shift' trains through Taichi: {why}")
    if max_iters is not None:
        check_int('max_iters', max_iters, 1)
    cfg = get_config(BACKBONES[backbone])
    cfg.work_dir = work_dir
    cfg.resume = resume
    _set_data(cfg, folder)
    if max_iters is None:
        max_iters = round(cfg.train_cfg.max_iters * iters_factor)
    _set_iterations(cfg, max_iters)
    if form != 'auto':
        cfg.model.backbone.shift_form = form
    # What the recipe derives its parts from has done its work, and would
    # contradict the parts that were set here.
    for name in ('data_root', 'classes', 'image_scale', 'max_iters',
                 'warm_up', 'train_pipeline', 'test_pipeline'):
        cfg.pop(name)
    return cfg


def _set_data(cfg: Config, folder: CocoFolder) -> None:
    scale = image_scale(folder)
    cfg.model.bbox_head.num_classes = len(folder.classes)
    for loader in (cfg.train_dataloader, cfg.val_dataloader,
                   cfg.test_dataloader):
        loader.dataset.data_root = f'{folder.root.resolve()}/'
        loader.dataset.metainfo = dict(classes=folder.classes)
        for step in loader.dataset.pipeline:
            if step.type == 'Resize':
                step.scale = scale
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        evaluator.ann_file = str(folder.val.ann_file.resolve())


def _set_iterations(cfg: Config, max_iters: int) -> None:
    warm_up, decay = cfg.param_scheduler
    warm_up.end = decay.begin = max(min(100, max_iters // 8), 1)
    decay.end = max(max_iters, decay.begin + 1)
    decay.T_max = decay.end - decay.begin
    cfg.train_cfg.max_iters = max_iters
    cfg.train_cfg.val_interval = max(max_iters // 2, 1)
    cfg.default_hooks.checkpoint.interval = cfg.train_cfg.val_interval
    logger = cfg.default_hooks.logger
    logger.interval = min(logger.interval, max_iters)


def run_demo(cfg: Config) -> dict:
    """Trains and evaluates by a config of :func:`demo_config`.

    Returns:
        dict: ``bbox_mAP`` and ``bbox_mAP_50`` of the last validation (COCO,
        0..1), and the paths ``checkpoint`` (a file) and ``pictures`` (a
        folder).
    """
    runner = Runner.from_cfg(cfg)
    runner.train()
    # A resumed run may have been complete, its last validation missing.
    metrics = runner.val() if cfg.resume else {
        name: runner.message_hub.get_scalar(f'val/{name}').current()
        for name in _METRICS
    }
    hook = next(h for h in runner.hooks
                if isinstance(h, ComparisonPicturesHook))
    work_dir = Path(runner.work_dir)
    return dict(
        **{name.removeprefix('coco/'): round(float(metrics[name]), 4)
           for name in _METRICS},
        checkpoint=str(work_dir / f'iter_{runner.iter}.pth'),
        pictures=str(work_dir / hook.out_dir))
