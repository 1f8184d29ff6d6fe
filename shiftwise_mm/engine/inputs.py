"""What a user gives to the tools: configs and checkpoints, checked."""
from __future__ import annotations

import pickle
from pathlib import Path

from mmengine.config import Config

from shiftwise_mm.config_paths import config_path

__all__ = [
    'BUILD_ERRORS', 'InputError', 'check_checkpoint', 'in_a_line',
    'read_config', 'set_work_dir'
]

# What building a model, a data set or an optimizer by a wrong config raises.
BUILD_ERRORS = (AssertionError, AttributeError, ImportError, LookupError,
                NotImplementedError, OSError, RuntimeError, TypeError,
                ValueError)


class InputError(ValueError):
    """A config or checkpoint cannot be used; the message is one line."""


def in_a_line(error: Exception) -> str:
    """Type and cause of an error, without line breaks."""
    text = str(error)
    if isinstance(error, pickle.UnpicklingError):
        # torch advises to load the file unsafely, and names the cause last.
        *_, cause = text.partition('\n\nCheck the doc')[0].split('\n\n')
        text = 'not a checkpoint, or not safe to load: ' \
            + cause.rpartition('error: ')[2].strip().partition('. ')[0]
    return f'{type(error).__name__}: ' + text.strip().partition('\n')[0]


def read_config(config: str, options: dict | None,
                needed: tuple[str, ...]) -> Config:
    """A config that holds what is needed.

    Args:
        config (str): Its path, or ``'shiftwise_mm::...'``.
        options (dict, optional): Changes, with dots in keys.
        needed (tuple[str]): Keys that must be there and not None.

    Raises:
        InputError: If it cannot be read or changed, or something is missing.
    """
    try:
        cfg = Config.fromfile(config_path(config))
        cfg.merge_from_dict(options or {})
    # A config is a program: it may raise anything.
    except Exception as error:
        raise InputError(f'config {config} cannot be read: '
                         f'{in_a_line(error)}') from error
    missing = [name for name in needed if cfg.get(name) is None]
    if missing:
        raise InputError(f'{config} has no {", ".join(missing)}')
    return cfg


def set_work_dir(cfg: Config, config: str, work_dir: str | None) -> None:
    """Where logs go: the option, else that of the config, else its name.

    Args:
        cfg (Config): Is given its ``work_dir``.
        config (str): The config's path, for ``work_dirs/NAME``.
        work_dir (str, optional): What the user asked for.
    """
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(config).stem))


def check_checkpoint(checkpoint: str) -> None:
    """Whether a checkpoint is there, unless it is a URL.

    Raises:
        InputError: If it is not.
    """
    if '://' not in checkpoint and not Path(checkpoint).expanduser().is_file():
        raise InputError(f'checkpoint {checkpoint} does not exist')
