"""Dense against sparse training on a data set, several seeds of each."""
from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mmengine.config import Config

from shiftwise_mm.datasets import (
    CocoFolder,
    SegFolder,
    read_coco_folder,
    read_seg_folder,
)
from shiftwise_mm.ops.spec import check_int

from ._demo_run import check_sparse
from .demo import OWN_DATA_FACTOR, demo_config, run_demo
from .demo_seg import demo_seg_config, run_demo_seg
from .sparsity_report import report_file

__all__ = ['Run', 'Settings', 'read_folder', 'read_result', 'run_all',
           'runs_of']

_RESULT = 'result.json'


@dataclass(frozen=True)
class Settings:
    """What all runs on a data set have in common.

    Attributes:
        small_kernel (int): Small kernel ``N`` of the backbone.
        max_iters (int, optional): Training iterations instead of those that
            the demo makes on a user's data.
    """

    small_kernel: int = 5
    max_iters: int | None = None


@dataclass(frozen=True)
class Run:
    """One training of the demo's network.

    Attributes:
        sparsity (float, optional): Share of the small kernels that is
            masked; None trains densely.
        seed (int): Of the weights, of the order of the images and of the
            masks.
    """

    sparsity: float | None
    seed: int

    @property
    def label(self) -> str:
        """``dense`` or ``sparse 0.4``."""
        return 'dense' if self.sparsity is None else \
            f'sparse {self.sparsity:g}'

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f'{self.label.replace(" ", "")}_seed{self.seed}'


def read_folder(path: str | os.PathLike) -> CocoFolder | SegFolder:
    """Reads a folder in the COCO format, or one of images and label maps.

    Raises:
        ValueError, OSError: If the demo would refuse it.
    """
    if (Path(path) / 'annotations' / 'train').is_dir():
        return read_seg_folder(path)
    return read_coco_folder(path)


def runs_of(sparsities: Sequence[float], seeds: Sequence[int]) -> list[Run]:
    """All runs, dense ones too; the first seed of each comes first.

    Raises:
        TypeError, ValueError: If a sparsity is not in [0, 1), a seed is
            negative, or a value occurs twice.
    """
    for sparsity in sparsities:
        check_sparse(sparsity)
    for seed in seeds:
        check_int('seeds', seed, 0)
    for name, values in (('sparsity', sparsities), ('seeds', seeds)):
        if len(set(values)) < len(values):
            raise ValueError(f'{name} must be different values, got '
                             f'{list(values)}')
    return [Run(sparsity, seed) for seed in seeds
            for sparsity in (None, *sparsities)]


def run_all(folder: CocoFolder | SegFolder, runs: Sequence[Run],
            settings: Settings, out: str | os.PathLike) -> Iterator[dict]:
    """Trains and evaluates; what was done before is only read.

    Args:
        folder (CocoFolder or SegFolder): A checked data set.
        runs (Sequence[Run]): Each gets a folder in ``out`` named after the
            data set and the run.
        settings (Settings): Common to all.
        out (str): Folder of the results.

    Yields:
        dict: Of each run ``run`` and ``settings`` by their attributes (with
        the iterations made), ``metrics`` (AP and AP50, or mIoU, 0..1, of the
        last validation), ``density`` (share of the small kernels kept, over
        all paths, by stage) and ``union`` (kept by any path), ``seconds`` of
        all of it, and ``checkpoint``, the path from ``out``.

    Raises:
        ValueError: If there are results of other settings.
    """
    out = Path(out)
    for run in runs:
        work_dir = out / folder.root.resolve().name / run.name
        cfg = _config(folder, run, settings, work_dir)
        found = read_result(work_dir)
        if found is None:
            found = _train(cfg, run, settings, out)
            _write(work_dir / _RESULT, found)
        _check(found, run, _settings_of(cfg, settings), work_dir)
        yield found


def read_result(work_dir: Path) -> dict | None:
    """The result of a run that came to its end, else None."""
    file = work_dir / _RESULT
    return json.loads(file.read_text()) if file.exists() else None


def _config(folder: CocoFolder | SegFolder, run: Run, settings: Settings,
            work_dir: Path) -> Config:
    options = dict(work_dir=str(work_dir), max_iters=settings.max_iters,
                   sparse=run.sparsity)
    if isinstance(folder, CocoFolder):
        cfg = demo_config(folder, iters_factor=OWN_DATA_FACTOR, **options)
    else:
        cfg = demo_seg_config(folder, **options)
    cfg.model.backbone.small_kernel = settings.small_kernel
    cfg.randomness.seed = run.seed
    # Loggers and visualizers go by these names, for as long as the process
    # lives.
    cfg.experiment_name = f'{work_dir.parent.name}_{run.name}'
    cfg.visualizer.name = cfg.experiment_name
    if run.sparsity is not None:
        cfg.custom_hooks[-1].seed = run.seed
    return cfg


def _settings_of(cfg: Config, settings: Settings) -> dict:
    return dict(asdict(settings), max_iters=cfg.train_cfg.max_iters)


def _train(cfg: Config, run: Run, settings: Settings, out: Path) -> dict:
    start = time.time()
    is_detector = 'bbox_head' in cfg.model
    result = (run_demo if is_detector else run_demo_seg)(cfg)
    checkpoint = Path(result['checkpoint'])
    stages = report_file(checkpoint).stages
    shares = {
        name: {stage: sum(int(f.sum()) for f in flags)
               / sum(f.numel() for f in flags)
               for stage, sets in stages.items()
               for flags in [[getattr(s, attribute) for s in sets]]}
        for name, attribute in (('density', 'kept'), ('union', 'union'))
    }
    names = {'bbox_mAP': 'AP', 'bbox_mAP_50': 'AP50'} if is_detector else \
        {'mIoU': 'mIoU'}
    return dict(
        run=asdict(run), settings=_settings_of(cfg, settings),
        metrics={new: result[old] for old, new in names.items()}, **shares,
        seconds=round(time.time() - start, 1),
        checkpoint=checkpoint.relative_to(out).as_posix())


def _check(found: dict, run: Run, settings: dict, work_dir: Path) -> None:
    if found['run'] != asdict(run) or found['settings'] != settings:
        raise ValueError(
            f'out must be empty or hold runs of the same settings, {work_dir} '
            f'is of {found["settings"]}, not {settings}')


def _write(file: Path, result: dict) -> None:
    part = file.with_name(f'.{os.getpid()}.{file.name}')
    try:
        part.write_text(json.dumps(result, indent=1) + '\n')
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
