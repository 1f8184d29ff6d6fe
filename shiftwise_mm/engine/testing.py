"""Testing of a checkpoint by a config: classes, boxes or segments."""
from __future__ import annotations

import copy

from mmengine.config import Config, ConfigDict

from .inputs import (
    BUILD_ERRORS,
    InputError,
    check_checkpoint,
    in_a_line,
    read_config,
    set_work_dir,
)
from .runner import build_runner, leave_group

__all__ = ['InputError', 'config_for_test', 'run_test']

_NEEDED = ('model', 'test_dataloader', 'test_evaluator')


def config_for_test(config: str,
                    checkpoint: str,
                    *,
                    work_dir: str | None = None,
                    out: str | None = None,
                    options: dict | None = None,
                    launcher: str = 'none',
                    tta: bool = False,
                    show: bool = False,
                    show_dir: str | None = None,
                    wait_time: float = 2.) -> Config:
    """A config made ready for :func:`run_test`.

    Args:
        config (str): Path of a config of MMDetection, MMSegmentation or of
            this package, or ``'shiftwise_mm::...'``; its ``default_scope``
            tells which library.
        checkpoint (str): What mmengine loads: a path or a URL.
        work_dir (str, optional): Where logs go; else that of the config, else
            ``work_dirs/`` and the name of the config.
        out (str, optional): Where predictions go: a folder of label maps for
            a segmentor, else a file ``.pkl`` or ``.pickle``.
        options (dict, optional): Changes of the config, with dots in keys.
        launcher (str): Launcher of a distributed run. Defaults to ``'none'``.
        tta (bool): Whether to average over augmented inputs: by ``tta_model``
            and ``tta_pipeline`` of the config, for a detector without them
            over the image and its mirror image.
        show (bool): Whether to show predictions in a window.
        show_dir (str, optional): Folder of painted predictions.
        wait_time (float): Seconds that a window stays. Defaults to 2.

    Raises:
        InputError: If something is missing or cannot be read.
    """
    cfg = read_config(config, options, _NEEDED)
    check_checkpoint(checkpoint)
    cfg.launcher = launcher
    cfg.load_from = checkpoint
    set_work_dir(cfg, config, work_dir)
    if show or show_dir:
        _visualise(cfg, show, show_dir, wait_time)
    if tta:
        _augment(cfg)
    if out is not None:
        _dump(cfg, out)
    return cfg


def run_test(cfg: Config) -> dict:
    """Tests by a config of :func:`config_for_test`.

    Returns:
        dict: The metrics, which are also logged.

    Raises:
        InputError: If the model, the data set or a metric cannot be built, or
            the checkpoint cannot be loaded.
    """
    metrics = _test(cfg)
    leave_group()
    return metrics


def _test(cfg: Config) -> dict:
    runner = build_runner(cfg)
    try:
        runner.test_loop  # noqa: B018  builds the data set and the metrics
    except BUILD_ERRORS as error:
        raise InputError(f'{cfg.filename}: {in_a_line(error)}') from error
    return runner.test()


def _visualise(cfg: Config, show: bool, show_dir: str | None,
               wait_time: float) -> None:
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise InputError(f'{cfg.filename} has no default_hooks.visualization, '
                         'by which predictions are shown')
    hook.draw = True
    if show:
        hook.update(show=True, wait_time=wait_time)
    if show_dir and cfg.get('default_scope') == 'mmseg':
        cfg.visualizer.save_dir = show_dir
    elif show_dir:
        hook.test_out_dir = show_dir


def _augment(cfg: Config) -> None:
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    if cfg.get('default_scope') == 'mmdet':
        cfg.setdefault(
            'tta_model',
            ConfigDict(
                type='shiftwise_mm.InstanceTTAModel',
                tta_cfg=dict(
                    nms=dict(type='nms', iou_threshold=0.5),
                    max_per_img=100)))
        cfg.setdefault('tta_pipeline', _with_mirror(dataset.pipeline))
    missing = [name for name in ('tta_model', 'tta_pipeline')
               if cfg.get(name) is None]
    if missing:
        raise InputError(f'{cfg.filename} has no {", ".join(missing)}, by '
                         'which augmented inputs are averaged')
    dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def _with_mirror(pipeline: list) -> list:
    """A detector's pipeline, its packing behind a flip and none."""
    *steps, pack = copy.deepcopy(pipeline)
    pack.meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape',
                      'scale_factor', 'flip', 'flip_direction')
    flips = [dict(type='RandomFlip', prob=prob) for prob in (1., 0.)]
    return [*steps, dict(type='TestTimeAug', transforms=[flips, [pack]])]


def _dump(cfg: Config, out: str) -> None:
    metrics = cfg.test_evaluator
    metrics = list(metrics) if isinstance(metrics, (list, tuple)) \
        else [metrics]
    scope = cfg.get('default_scope')
    if scope == 'mmseg':
        for metric in metrics:
            metric.output_dir = out
        return
    if not out.endswith(('.pkl', '.pickle')):
        raise InputError(f'out must end in .pkl or .pickle, got {out!r}')
    dump = 'mmdet.DumpDetResults' if scope == 'mmdet' \
        else 'mmengine.DumpResults'
    cfg.test_evaluator = [*metrics, dict(type=dump, out_file_path=out)]
