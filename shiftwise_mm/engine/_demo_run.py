"""What both demos share: options, iterations, the run itself."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from shiftwise_mm.engine.hooks import ComparisonPicturesHook
from shiftwise_mm.ops import available_backends
from shiftwise_mm.ops.forms import FORM_NAMES

LONG_SIDE = 480  # pixels; what a CPU trains on within minutes


def fit_scale(median_size: tuple[float, float],
              long_side: int = LONG_SIDE) -> tuple[int, int]:
    """Width and height, shrunk to a long side, in multiples of 8 pixels."""
    width, height = median_size
    shrink = min(1., long_side / max(width, height))
    return tuple(max(32, round(side * shrink / 8) * 8)
                 for side in (width, height))


def check_form(form: str) -> None:
    """Refuses a form that is unknown or cannot train here.

    Raises:
        ValueError: If it is, or ``form='shift'`` could not run through
            Taichi.
    """
    if form not in FORM_NAMES:
        raise ValueError(f'form must be one of {FORM_NAMES}, got {form!r}')
    if form == 'shift':
        why = available_backends(torch.zeros(1))['taichi']
        if why is not None:
            raise ValueError(f"form='shift' trains through Taichi: {why}")


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


def train_and_validate(cfg: Config,
                       metrics: Sequence[str]) -> tuple[dict, dict]:
    """Trains and evaluates.

    Args:
        cfg (Config): With a :class:`ComparisonPicturesHook`.
        metrics (Sequence[str]): Names of metrics.

    Returns:
        tuple[dict, dict]: These metrics (float) of the last validation, and
        the paths ``checkpoint`` (a file) and ``pictures`` (a folder).
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
    return {name: float(found[name]) for name in metrics}, dict(
        checkpoint=str(work_dir / f'iter_{runner.iter}.pth'),
        pictures=str(work_dir / hook.out_dir))
