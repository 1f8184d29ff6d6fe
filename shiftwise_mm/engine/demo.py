"""The demo: a small detector trained on a folder in the COCO format."""
from __future__ import annotations

from mmengine.config import Config

from shiftwise_mm.datasets import CocoFolder

from ._demo_run import fit_scale, palette, recipe, train_and_validate

__all__ = ['BACKBONES', 'OWN_DATA_FACTOR', 'demo_config', 'image_scale',
           'run_demo']

# Names of the demo's backbones and the configs behind them.
BACKBONES = {
    'shiftwise-nano':
    'shiftwise_mm::demo/rtmdet_shiftwise-nano_demo_shapes.py',
    'resnet18': 'shiftwise_mm::demo/rtmdet_resnet18_demo_shapes.py',
}
# On the iterations of the recipe, for a user's data: photographs are larger
# than the generated shapes, fewer iterations take about twice the time.
OWN_DATA_FACTOR = 5 / 6
_METRICS = ('coco/bbox_mAP', 'coco/bbox_mAP_50')


def image_scale(folder: CocoFolder) -> tuple[int, int]:
    """Width and height in pixels at which the demo trains on a data set.

    The median size of the training images, shrunk until its long side is at
    most 480, rounded to multiples of 8.
    """
    return fit_scale(folder.train.median_size)


def demo_config(folder: CocoFolder, *, work_dir: str,
                backbone: str = 'shiftwise-nano', form: str = 'auto',
                max_iters: int | None = None,
                iters_factor: float = 1., resume: bool = False,
                sparse: float | None = None) -> Config:
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
        sparse (float, optional): Share of the small kernels to mask, see
            :class:`~shiftwise_mm.engine.hooks.CoarseSparsityHook`; must be
            None for a backbone that has none.

    Returns:
        Config: For ``Runner.from_cfg``.

    Raises:
        TypeError, ValueError: If a name is unknown, the form does not fit the
            backbone, ``form='shift'`` could not run through Taichi here, or
            ``sparse`` is not in [0, 1).
    """
    if backbone not in BACKBONES:
        raise ValueError(f'backbone must be one of {tuple(BACKBONES)}, got '
                         f'{backbone!r}')
    if form != 'auto' and not backbone.startswith('shiftwise'):
        raise ValueError(f'form must be auto for backbone {backbone!r}, got '
                         f'{form!r}')
    if sparse is not None and not backbone.startswith('shiftwise'):
        raise ValueError(f'sparse must be None for backbone {backbone!r}, '
                         f'got {sparse!r}')
    cfg = recipe(BACKBONES[backbone], work_dir=work_dir, form=form,
                 max_iters=max_iters, iters_factor=iters_factor,
                 resume=resume, sparse=sparse)
    _set_data(cfg, folder)
    return cfg


def _set_data(cfg: Config, folder: CocoFolder) -> None:
    scale = image_scale(folder)
    cfg.model.bbox_head.num_classes = len(folder.classes)
    for loader in (cfg.train_dataloader, cfg.val_dataloader,
                   cfg.test_dataloader):
        loader.dataset.data_root = f'{folder.root.resolve()}/'
        loader.dataset.metainfo = dict(classes=folder.classes,
                                       palette=palette(folder.classes))
        for step in loader.dataset.pipeline:
            if step.type == 'Resize':
                step.scale = scale
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        evaluator.ann_file = str(folder.val.ann_file.resolve())


def run_demo(cfg: Config) -> dict:
    """Trains and evaluates by a config of :func:`demo_config`.

    Returns:
        dict: ``bbox_mAP`` and ``bbox_mAP_50`` of the last validation (COCO,
        0..1), and the paths ``checkpoint`` (a file) and ``pictures`` (a
        folder); of a sparse training also ``density``.
    """
    metrics, paths = train_and_validate(cfg, _METRICS)
    return dict(
        **{name.removeprefix('coco/'): round(value, 4)
           for name, value in metrics.items()}, **paths)
