"""Training by a config: classifiers, detectors and segmentors."""
from __future__ import annotations

from mmengine.config import Config
from mmengine.device import get_device

from .inputs import (
    BUILD_ERRORS,
    InputError,
    check_checkpoint,
    in_a_line,
    read_config,
    set_work_dir,
)
from .runner import build_runner, leave_group

__all__ = ['config_for_training', 'run_training']

_NEEDED = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
# Wrappers of optimizers that --amp replaces.
_WRAPPERS = ('OptimWrapper', 'AmpOptimWrapper', 'CpuAmpOptimWrapper')


def config_for_training(config: str,
                        *,
                        work_dir: str | None = None,
                        resume: str | None = None,
                        amp: bool = False,
                        auto_scale_lr: bool = False,
                        options: dict | None = None,
                        launcher: str = 'none') -> Config:
    """A config made ready for :func:`run_training`.

    Args:
        config (str): Path of a config of MMDetection, MMSegmentation or of
            this package, or ``'shiftwise_mm::...'``; its ``default_scope``
            tells which library.
        work_dir (str, optional): Where logs and checkpoints go; else that of
            the config, else ``work_dirs/`` and the name of the config.
        resume (str, optional): The checkpoint to continue from; ``'auto'``
            for the last one in ``work_dir``, if there is one.
        amp (bool): Whether to train in mixed precision: by mmengine's
            ``AmpOptimWrapper``, without an accelerator by
            :class:`~shiftwise_mm.engine.optimizers.CpuAmpOptimWrapper`.
        auto_scale_lr (bool): Whether to scale the learning rate by the batch
            of all processes over ``auto_scale_lr.base_batch_size``.
        options (dict, optional): Changes of the config, with dots in keys.
        launcher (str): Launcher of a distributed run. Defaults to ``'none'``.

    Raises:
        InputError: If something is missing or cannot be read.
    """
    cfg = read_config(config, options, _NEEDED)
    cfg.launcher = launcher
    set_work_dir(cfg, config, work_dir)
    if amp:
        _use_amp(cfg)
    if auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise InputError(f'{config} has no auto_scale_lr.base_batch_size, '
                             'by which the learning rate is scaled')
        cfg.auto_scale_lr.enable = True
    if resume is not None:
        if resume != 'auto':
            check_checkpoint(resume)
        cfg.resume = True
        cfg.load_from = None if resume == 'auto' else resume
    return cfg


def run_training(cfg: Config) -> None:
    """Trains by a config of :func:`config_for_training`.

    Raises:
        InputError: If the model, a data set or another part cannot be built,
            or a checkpoint cannot be loaded.
    """
    _train(cfg)
    leave_group()


def _train(cfg: Config) -> None:
    runner = build_runner(cfg)
    try:
        runner.train()
    except InputError:
        raise
    except BUILD_ERRORS as error:
        if getattr(runner, 'started', True):
            raise
        raise InputError(f'{cfg.filename}: {in_a_line(error)}') from error


def _use_amp(cfg: Config) -> None:
    wrapper = cfg.optim_wrapper
    kind = wrapper.get('type', 'OptimWrapper')
    if not isinstance(kind, str) or kind.split('.')[-1] not in _WRAPPERS:
        raise InputError(
            f'{cfg.filename} has optim_wrapper.type={kind!r}: mixed precision '
            f'replaces only {" and ".join(_WRAPPERS[:2])}')
    if get_device() == 'cpu':
        for name in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(name, None)
        wrapper.type = 'shiftwise_mm.CpuAmpOptimWrapper'
    else:
        wrapper.type = 'AmpOptimWrapper'
        wrapper.setdefault('loss_scale', 'dynamic')
