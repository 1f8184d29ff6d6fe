"""What both demos share: options, iterations, the run itself."""
from __future__ import annotations

from collections.abc import Sequence
from colorsys import hsv_to_rgb
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from shiftwise_mm.config_paths import config_path
from shiftwise_mm.engine.hooks import (
    CoarseSparsityHook,
    ComparisonPicturesHook,
)
from shiftwise_mm.ops import available_backends
from shiftwise_mm.ops.forms import FORM_NAMES
from shiftwise_mm.ops.spec import check_int
from shiftwise_mm.sparsity import find_targets

# Of a sparse run. The published training has some 940, and makes 7 of them for
# all paths together.
_UPDATES = 60
_PATH_GAP = 8
LONG_SIDE = 480  # pixels; what a CPU trains on within minutes


def fit_scale(median_size: tuple[float, float],
              long_side: int = LONG_SIDE) -> tuple[int, int]:
    """Width and height, shrunk to a long side, in multiples of 8 pixels."""
    width, height = median_size
    shrink = min(1., long_side / max(width, height))
    return tuple(max(32, round(side * shrink / 8) * 8)
                 for side in (width, height))


def palette(classes: Sequence[str]) -> list[tuple[int, ...]]:
    """Hues far apart; a background is black, so that it hides nothing.

    mmdet's visualizer takes no lists for colours.
    """
    return [(0, 0, 0) if name == 'background' else
            tuple(round(255 * part) for part in hsv_to_rgb(i * .618 % 1, 1, 1))
            for i, name in enumerate(classes)]


def recipe(path: str, *, work_dir: str, form: str, max_iters: int | None,
           iters_factor: float, resume: bool, sparse: float | None) -> Config:
    """A demo's config with its options, still for the data of its recipe.

    Args:
        path (str): Of the recipe, for
            :func:`~shiftwise_mm.config_paths.config_path`.
        work_dir, form, max_iters, iters_factor, resume, sparse: As the demos
            take them.

    Raises:
        TypeError, ValueError: If ``max_iters`` is no positive integer, or as
            :func:`check_form` and :func:`check_sparse` do.
    """
    if max_iters is not None:
        check_int('max_iters', max_iters, 1)
    check_form(form)
    check_sparse(sparse)
    cfg = Config.fromfile(config_path(path))
    cfg.work_dir = work_dir
    cfg.resume = resume
    if max_iters is None:
        max_iters = round(cfg.train_cfg.max_iters * iters_factor)
    set_iterations(cfg, max_iters)
    if form != 'auto':
        cfg.model.backbone.shift_form = form
    if sparse is not None:
        add_sparsity(cfg, sparse)
    # What the recipe derives its parts from has done its work, and would
    # contradict the parts that are set.
    for name in ('data_root', 'classes', 'image_scale', 'max_iters',
                 'warm_up', 'batch_size', 'train_pipeline', 'test_pipeline'):
        cfg.pop(name, None)
    return cfg


def check_form(form: str) -> None:
    """Refuses a form that is unknown or cannot train here.

    Raises:
        ValueError: If it is, has no gradients, or ``form='shift'`` could not
            run through Taichi.
    """
    if form not in FORM_NAMES:
        raise ValueError(f'form must be one of {FORM_NAMES}, got {form!r}')
    if form == 'channels':
        raise ValueError("form='channels' has no gradients: it cannot train")
    if form == 'shift':
        why = available_backends(torch.zeros(1))['taichi']
        if why is not None:
            raise ValueError(f"form='shift' trains through Taichi: {why}")


def check_sparse(sparse: float | None) -> None:
    """Refuses a share of masked kernels that the hook would.

    Raises:
        TypeError, ValueError: If it is neither None nor in [0, 1).
    """
    if sparse is not None:
        CoarseSparsityHook(sparsity=sparse)


def set_iterations(cfg: Config, max_iters: int) -> None:
    """Sets the length of a run, and with it warm-up, decay and intervals.

    Args:
        cfg (Config): Changed in place.
        max_iters (int): Positive.
    """
    warm_up, decay = cfg.param_scheduler
    warm_up.end = decay.begin = max(min(100, max_iters // 8), 1)
    decay.end = max(max_iters, decay.begin + 1)
    decay.T_max = decay.end - decay.begin
    cfg.train_cfg.max_iters = max_iters
    cfg.train_cfg.val_interval = max(max_iters // 2, 1)
    cfg.default_hooks.checkpoint.interval = cfg.train_cfg.val_interval
    logger = cfg.default_hooks.logger
    logger.interval = min(logger.interval, max_iters)


def add_sparsity(cfg: Config, sparsity: float) -> None:
    """Lets a run of the length that is set train sparsely.

    Args:
        cfg (Config): Changed in place.
        sparsity (float): Share of the small kernels that is masked.
    """
    hook = dict(type='shiftwise_mm.CoarseSparsityHook', sparsity=sparsity,
                interval=max(cfg.train_cfg.max_iters // _UPDATES, 1),
                path_gap=_PATH_GAP)
    cfg.custom_hooks = [*cfg.custom_hooks, hook]


def train_and_validate(cfg: Config,
                       metrics: Sequence[str]) -> tuple[dict, dict]:
    """Trains and evaluates.

    Args:
        cfg (Config): With a :class:`ComparisonPicturesHook`.
        metrics (Sequence[str]): Names of metrics.

    Returns:
        tuple[dict, dict]: These metrics (float) of the last validation; and
        the paths ``checkpoint`` (a file) and ``pictures`` (a folder), of a
        sparse training also ``density`` (float), the share of taps kept.
    """
    runner = Runner.from_cfg(cfg)
    runner.train()
    # A resumed run may have been complete, its last validation missing.
    found = runner.val() if cfg.resume else {
        name: runner.message_hub.get_scalar(f'val/{name}').current()
        for name in metrics
    }
    hook = next(h for h in runner.hooks
                if isinstance(h, ComparisonPicturesHook))
    work_dir = Path(runner.work_dir)
    rest = dict(checkpoint=str(work_dir / f'iter_{runner.iter}.pth'),
                pictures=str(work_dir / hook.out_dir))
    if any(isinstance(h, CoarseSparsityHook) for h in runner.hooks):
        flags = torch.cat([target.flags().flatten() for target in
                           find_targets(runner.model, 'tap')])
        rest['density'] = round(flags.float().mean().item(), 4)
    return {name: float(found[name]) for name in metrics}, rest
