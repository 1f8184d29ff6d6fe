"""Dense against sparse training on a data set, several seeds of each."""
from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from mmengine.config import Config

from shiftwise_mm.analysis.benchmark.report import write_whole
from shiftwise_mm.datasets import (
    CocoFolder,
    SegFolder,
    read_coco_folder,
    read_seg_folder,
)
from shiftwise_mm.ops.spec import check_int
from shiftwise_mm.registry import MODELS

from ._demo_run import check_sparse
from .demo import OWN_DATA_FACTOR, demo_config, run_demo
from .demo_seg import OWN_DATA_FACTOR as OWN_MAPS_FACTOR
from .demo_seg import demo_seg_config, run_demo_seg

__all__ = ['Result', 'Run', 'Settings', 'read_folder', 'run_all', 'runs_of']

_RESULT = 'result.json'
# Names of the demos' metrics, and ours.
_AP = {'bbox_mAP': 'AP', 'bbox_mAP_50': 'AP50'}
_MIOU = {'mIoU': 'mIoU'}


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


@dataclass(frozen=True)
class Result:
    """What came out of a run.

    Attributes:
        run (Run): The run.
        metrics (dict): AP and AP50, or mIoU, 0..1, of the last validation.
        checkpoint (Path): The trained network.
        backbone (dict): Its options.
    """

    run: Run
    metrics: dict[str, float]
    checkpoint: Path
    backbone: dict


def run_all(folder: CocoFolder | SegFolder, runs: Sequence[Run],
            settings: Settings, out: str | os.PathLike) -> Iterator[Result]:
    """Trains and evaluates; what was done before is only read.

    Args:
        folder (CocoFolder or SegFolder): A checked data set.
        runs (Sequence[Run]): Each gets a folder in ``out``, named after the
            data set and the run. A run that was broken off begins anew.
        settings (Settings): Common to all.
        out (str): Folder of the results.

    Yields:
        Result: Of each run.

    Raises:
        TypeError, ValueError: If a setting is not allowed, or a result is
            there of other settings.
    """
    for run in runs:
        work_dir = Path(out) / folder.root.resolve().name / run.name
        cfg = _config(folder, run, settings, work_dir)
        made_by = dict(asdict(run), small_kernel=settings.small_kernel,
                       max_iters=cfg.train_cfg.max_iters)
        file = work_dir / _RESULT
        if not file.exists():
            content = dict(made_by=made_by, **_train(cfg))
            write_whole(file, json.dumps(content, indent=1) + '\n')
        found = json.loads(file.read_text())
        if found['made_by'] != made_by:
            raise ValueError(
                'out must be empty or hold runs of the same settings, that in '
                f'{work_dir} was made by {found["made_by"]}, asked was '
                f'{made_by}')
        yield Result(run, found['metrics'], work_dir / found['checkpoint'],
                     cfg.model.backbone.to_dict())


def _config(folder: CocoFolder | SegFolder, run: Run, settings: Settings,
            work_dir: Path) -> Config:
    options = dict(work_dir=str(work_dir), max_iters=settings.max_iters,
                   sparse=run.sparsity)
    if isinstance(folder, CocoFolder):
        cfg = demo_config(folder, iters_factor=OWN_DATA_FACTOR, **options)
    else:
        cfg = demo_seg_config(folder, iters_factor=OWN_MAPS_FACTOR, **options)
    cfg.model.backbone.small_kernel = settings.small_kernel
    MODELS.build(cfg.model.backbone)  # refused before anything is written
    cfg.randomness.seed = run.seed
    # Loggers and visualizers go by these names, for as long as the process
    # lives.
    cfg.experiment_name = f'{work_dir.parent.name}_{run.name}'
    cfg.visualizer.name = cfg.experiment_name
    if run.sparsity is not None:
        cfg.custom_hooks[-1].seed = run.seed
    return cfg


def _train(cfg: Config) -> dict:
    start = time.time()
    is_detector = 'bbox_head' in cfg.model
    result = (run_demo if is_detector else run_demo_seg)(cfg)
    names = _AP if is_detector else _MIOU
    return dict(
        metrics={new: result[old] for old, new in names.items()},
        seconds=round(time.time() - start, 1),
        checkpoint=Path(result['checkpoint']).name)
