"""Scalars of trainings, out of the logs that mmengine writes."""
from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

__all__ = ['Scalars', 'choose_keys', 'read_run']

_FILE = 'scalars.json'  # in `vis_data`, by mmengine's LocalVisBackend
_COUNTS = ('epoch', 'iter', 'step')
_SIDE = ('base_lr', 'data_time', 'time', 'memory', 'grad_norm')
# Last parts of the metrics that are looked at first.
_METRICS = ('mAP', 'mAP_50', 'mIoU', 'mAcc', 'aAcc', 'mDice', 'mFscore',
            'top1', 'top5', 'AR@100', 'PQ')
_MOST_LOSSES, _MOST_METRICS = 5, 6


@dataclass
class Scalars:
    """What a training logged.

    Attributes:
        train (dict): Name of each scalar logged while training (``loss``,
            ``lr``, ...) to its points, ``(iteration, value)``.
        metrics (dict): The same of validation; the iteration is that of the
            last record of training before it, unless the log itself says a
            later one.
        parts (int): How many files they were read from.
    """

    train: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    parts: int = 0

    @property
    def iterations(self) -> int:
        """The last iteration that is known."""
        return max((points[-1][0] for points in
                    (*self.train.values(), *self.metrics.values()) if points),
                   default=0)

    def points(self, key: str) -> list[tuple[int, float]]:
        """The points of a scalar, none if it was not logged."""
        return self.metrics.get(key) or self.train.get(key) or []


def read_run(path: str | os.PathLike) -> Scalars:
    """The scalars of a run, resumed ones in one piece.

    A part that was resumed replaces what earlier parts logged from its first
    iteration on. The last line of a file may be torn, as a run leaves it that
    was killed or still writes.

    Args:
        path (str): A folder of a run (``work_dir``), the folder of one of its
            parts (named by its time), or a ``scalars.json``.

    Raises:
        FileNotFoundError: If there is no such path, or no log in it.
        ValueError: If a log is broken or holds nothing.
    """
    path = Path(path).expanduser()
    files = _logs(path)
    found = Scalars()
    for file in files:
        part = _read(file)
        if part.train or len(files) == 1:  # else of a validation only
            _append(found, part)
    if not found.train and not found.metrics:
        raise ValueError(f'{path} holds no scalars: nothing was logged yet')
    return found


def _logs(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.exists():
        raise FileNotFoundError(f'run {path} does not exist')
    for pattern in _FILE, f'vis_data/{_FILE}':
        if (path / pattern).is_file():
            return [path / pattern]
    # Folders are called by the time of their start.
    files = sorted(file for file in path.glob(f'*/vis_data/{_FILE}')
                   if not file.parts[-3].startswith('.'))
    if not files:
        deeper = sorted({str(file.parents[2])
                         for file in path.rglob(f'vis_data/{_FILE}')})
        hint = f'; there are runs in it: {", ".join(deeper[:5])}' \
            if deeper else ''
        raise FileNotFoundError(
            f'run {path} holds no vis_data/{_FILE}, as mmengine\'s '
            f'LocalVisBackend writes it{hint}')
    return files


def _read(file: Path) -> Scalars:
    found, last = Scalars(parts=1), 0
    lines = file.read_text('utf-8', errors='replace').splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise ValueError(f'{file}, line {number}: no JSON: '
                             f'{error}') from error
        if not isinstance(record, dict) or 'step' not in record:
            raise ValueError(f'{file}, line {number}: not a record of '
                             'mmengine, which has a step')
        # Validation knows no iteration; its step may be the epoch, or 0.
        training = 'iter' in record or 'lr' in record
        last = record['step'] if training else max(last, record['step'])
        series = found.train if training else found.metrics
        for key, value in record.items():
            if key not in _COUNTS and isinstance(value, (int, float)):
                points = series.setdefault(key, [])
                if points and points[-1][0] == last:
                    points.pop()  # validated again
                points.append((last, value))
    return found


def _append(whole: Scalars, part: Scalars) -> None:
    start = min((points[0][0] for points in part.train.values()), default=0)
    for series, new in ((whole.train, part.train),
                        (whole.metrics, part.metrics)):
        for key in list(series):
            series[key] = [p for p in series[key] if p[0] < start]
            if not series[key]:
                del series[key]
        for key, points in new.items():
            series.setdefault(key, []).extend(points)
    whole.parts += 1


def choose_keys(runs: Mapping[str, Scalars],
                patterns: Sequence[str] = ()) -> list[str]:
    """Which scalars to show.

    Without patterns: ``loss``, its parts if there are few, ``lr``, and the
    metrics that papers report, of which at least one value is known (COCO's
    are -1 where there are no objects).

    Args:
        runs (Mapping): Scalars by label.
        patterns (Sequence[str]): Names, or patterns with ``*``, of the whole
            name or of what follows its last ``/``.

    Raises:
        ValueError: If a pattern matches nothing; the names are in it.
    """
    train = list(dict.fromkeys(key for run in runs.values()
                               for key in run.train))
    metrics = list(dict.fromkeys(
        key for run in runs.values() for key, points in run.metrics.items()
        if key not in _SIDE and any(value != -1 for _, value in points)))
    if patterns:
        names, found = [*train, *metrics], []
        for pattern in patterns:
            matching = [name for name in names if fnmatchcase(name, pattern)
                        or fnmatchcase(name.rpartition('/')[2], pattern)]
            if not matching:
                raise ValueError(f'no scalar is called {pattern!r}; there are '
                                 f'{", ".join(names)}')
            found += matching
        return list(dict.fromkeys(found))
    losses = [key for key in train if 'loss' in key and key != 'loss']
    first = [key for key in metrics if key.rpartition('/')[2].rpartition(
        'bbox_')[2].rpartition('segm_')[2] in _METRICS]
    return [*(['loss'] if 'loss' in train else []),
            *(losses if len(losses) <= _MOST_LOSSES else []),
            *(['lr'] if 'lr' in train else []),
            *(first or metrics)[:_MOST_METRICS]]
