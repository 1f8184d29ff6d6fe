"""The demo of segmentation: a small segmentor trained on label maps."""
from __future__ import annotations

from mmengine.config import Config

from shiftwise_mm.datasets import SegFolder

from ._demo_run import fit_scale, palette, recipe, train_and_validate

__all__ = ['OWN_DATA_FACTOR', 'demo_seg_config', 'run_demo_seg',
           'seg_image_scale']

# On the iterations of the recipe, for a user's data: as many images in less
# time. The generated shapes need the steps, or their classes stay alike.
OWN_DATA_FACTOR = 1 / 2
_CONFIG = 'shiftwise_mm::demo/upernet_shiftwise-nano_demo_shapes.py'
_METRIC = 'mIoU'
_LONG_SIDE = 256  # pixels; what a CPU trains on within minutes


def seg_image_scale(folder: SegFolder) -> tuple[int, int]:
    """Width and height in pixels at which the demo trains on a data set.

    The median size of the training images, shrunk until its long side is at
    most 256, rounded to multiples of 8.
    """
    return fit_scale(folder.train.median_size, _LONG_SIDE)


def demo_seg_config(folder: SegFolder, *, work_dir: str, form: str = 'auto',
                    max_iters: int | None = None,
                    iters_factor: float = 1., resume: bool = False,
                    sparse: float | None = None) -> Config:
    """The demo's config for a data set.

    Args:
        folder (SegFolder): A checked data set.
        work_dir (str): Where logs, checkpoint and pictures go.
        form (str): Form of the shift-wise convolution, see
            :func:`shiftwise_mm.ops.shiftwise_conv`.
        max_iters (int, optional): Training iterations instead of those of
            the recipe.
        iters_factor (float): Factor on the iterations of the recipe, which
            suit the generated shapes; batches are as much larger. Defaults
            to 1.
        resume (bool): Whether to continue from the last checkpoint in
            ``work_dir``, if there is one.
        sparse (float, optional): Share of the small kernels to mask, see
            :class:`~shiftwise_mm.engine.hooks.CoarseSparsityHook`.

    Returns:
        Config: For ``Runner.from_cfg``.

    Raises:
        TypeError, ValueError: If the form is unknown, ``form='shift'`` could
            not run through Taichi here, ``max_iters`` is no positive integer,
            or ``sparse`` is not in [0, 1).
    """
    cfg = recipe(_CONFIG, work_dir=work_dir, form=form, max_iters=max_iters,
                 iters_factor=iters_factor, resume=resume, sparse=sparse)
    _set_data(cfg, folder)
    loader = cfg.train_dataloader
    loader.batch_size = round(loader.batch_size / iters_factor)
    return cfg


def _set_data(cfg: Config, folder: SegFolder) -> None:
    scale = seg_image_scale(folder)
    cfg.model.data_preprocessor.size = scale[::-1]
    cfg.model.decode_head.num_classes = len(folder.classes)
    for loader, split in ((cfg.train_dataloader, folder.train),
                          (cfg.val_dataloader, folder.val),
                          (cfg.test_dataloader, folder.val)):
        loader.dataset.update(
            data_root=None,
            metainfo=dict(classes=folder.classes,
                          palette=palette(folder.classes)),
            data_prefix=dict(
                img_path=str(split.image_dir.resolve()),
                seg_map_path=str(split.map_dir.resolve())),
            img_suffix=folder.image_suffix,
            seg_map_suffix=folder.map_suffix)
        for step in loader.dataset.pipeline:
            if 'scale' in step:
                step.scale = scale
            elif step.type == 'RandomCrop':
                step.crop_size = scale[::-1]


def run_demo_seg(cfg: Config) -> dict:
    """Trains and evaluates by a config of :func:`demo_seg_config`.

    Returns:
        dict: ``mIoU`` of the last validation (0..1), and the paths
        ``checkpoint`` (a file) and ``pictures`` (a folder); of a sparse
        training also ``density``.
    """
    metrics, paths = train_and_validate(cfg, [_METRIC])
    return dict(mIoU=round(metrics[_METRIC] / 100, 4), **paths)
