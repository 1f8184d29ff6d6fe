"""COCO 2017 and ADE20K in miniature, in exactly their layouts.

The shipped configs run on them unmodified, where they look for the data sets
(``data/coco``, ``data/ade``); :func:`options` shrinks images, crops and
numbers of proposals to about an eighth, and the schedule to two iterations.
"""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers import ROOT
from mmengine.config import Config
from PIL import Image
from processes import run_forked

SHRINK = 8
# Keys of COCO's 90 things that no image has.
_UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
# What is a size in a pipeline, and in a model.
_PIXELS = ('scale', 'scales', 'crop_size', 'img_scale', 'max_size', 'size')
_COUNTS = ('nms_pre', 'max_per_img', 'num', 'num_queries', 'num_points',
           'crop_size', 'stride', 'size')


@pytest.fixture(scope='session')
def miniature(tmp_path_factory) -> Path:
    """A folder with ``data/coco`` and ``data/ade/ADEChallengeData2016``."""
    base = tmp_path_factory.mktemp('miniature')
    make_coco(base / 'data/coco')
    make_ade20k(base / 'data/ade/ADEChallengeData2016')
    return base


def make_coco(root: Path, num_train: int = 4, num_val: int = 2,
              seed: int = 0) -> None:
    """``annotations/instances_*.json``, ``train2017/``, ``val2017/``.

    Of the training images one more has no object: mmdet leaves it out.
    Objects are polygons, and one crowd an image as a run-length code.
    """
    from mmdet.datasets import CocoDataset
    ids = [i for i in range(1, 91) if i not in _UNUSED]
    categories = [
        dict(id=i, name=name, supercategory='thing') for i, name in zip(
            ids, CocoDataset.METAINFO['classes'], strict=True)]
    rng = np.random.default_rng(seed)
    (root / 'annotations').mkdir(parents=True)
    for split, count in ('train2017', num_train + 1), ('val2017', num_val):
        (root / split).mkdir()
        images, annotations = [], []
        for i in range(count):
            # Of both orientations.
            size = (128, 96) if i % 2 else (96, 120)
            image = dict(
                id=100 * i + 9, file_name=f'{100 * i + 9:012}.jpg',
                width=size[0], height=size[1], license=1, coco_url='',
                flickr_url='', date_captured='2013-11-14 11:18:45')
            pixels = _noise(rng, size)
            if i < num_train:
                for crowd in 0, 0, 0, 1:
                    annotations.append(dict(
                        _object(rng, pixels, crowd), image_id=image['id'],
                        id=len(annotations) + 1,
                        category_id=int(rng.choice(ids))))
            Image.fromarray(pixels).save(root / split / image['file_name'])
            images.append(image)
        (root / f'annotations/instances_{split}.json').write_text(json.dumps(
            dict(info={}, licenses=[], images=images, annotations=annotations,
                 categories=categories)))


def _noise(rng, size: tuple[int, int]) -> np.ndarray:
    width, height = size
    pixels = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3))
    return cv2.resize(pixels.astype(np.uint8), size)


def _object(rng, pixels: np.ndarray, crowd: int) -> dict:
    """Paints a hexagon; its box, area and segmentation."""
    height, width = pixels.shape[:2]
    radius = rng.uniform(12, 30)
    centre = rng.uniform((radius, radius), (width - radius, height - radius))
    angles = np.arange(6) * np.pi / 3 + rng.uniform(0, 1)
    points = centre + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
    cv2.fillPoly(pixels, [points.round().astype(int)],
                 rng.integers(0, 256, 3).tolist())
    low, high = points.min(0), points.max(0)
    segmentation = [points.round(2).flatten().tolist()]
    if crowd:
        mask = np.zeros((height, width), np.uint8)
        cv2.fillPoly(mask, [points.round().astype(int)], 1)
        # Runs of zeros and ones in turn, down the columns.
        flat = np.concatenate([[0], mask.flatten('F'), [2]])
        ends = np.flatnonzero(np.diff(flat)).tolist()
        segmentation = dict(size=[height, width],
                            counts=np.diff([0, *ends]).tolist())
    return dict(segmentation=segmentation, iscrowd=crowd,
                area=float(1.5 * 3**.5 * radius**2),
                bbox=[*low.round(2).tolist(), *(high - low).round(2).tolist()])


def make_ade20k(root: Path, num_train: int = 4, num_val: int = 2,
                seed: int = 0) -> None:
    """``{images,annotations}/{training,validation}``: 0 is unlabelled."""
    rng = np.random.default_rng(seed)
    for split, short, count in (('training', 'train', num_train),
                                ('validation', 'val', num_val)):
        for folder in 'images', 'annotations':
            (root / folder / split).mkdir(parents=True)
        for i in range(1, count + 1):
            name, size = f'ADE_{short}_{i:08}', (104 + 8 * i, 96)
            labels = rng.integers(0, 151, (6, 8)).astype(np.uint8)
            labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
            pixels = _noise(rng, size) // 2 + labels[..., None] // 2
            Image.fromarray(pixels).save(root / f'images/{split}/{name}.jpg')
            Image.fromarray(labels).save(
                root / f'annotations/{split}/{name}.png')


def options(config: str | Path, **more) -> list[str]:
    """``--cfg-options`` by which a shipped config runs on a miniature set.

    Args:
        config: Path of the config.
        more: Further options, with ``__`` for each dot.
    """
    cfg = Config.fromfile(config)
    found = {}
    for name in 'train', 'val', 'test':
        _shrink(cfg[f'{name}_dataloader']['dataset'], _PIXELS,
                f'{name}_dataloader.dataset', found)
    _shrink(cfg.get('tta_pipeline'), _PIXELS, 'tta_pipeline', found)
    _shrink(cfg.model, _COUNTS, 'model', found)
    if 'max_epochs' in cfg.train_cfg:
        found['train_cfg.max_epochs'] = 1
    else:
        found.update({'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2,
                      'default_hooks.checkpoint.interval': 2})
    found['train_dataloader.batch_size'] = 2
    found['default_hooks.logger.interval'] = 1
    if 'checkpoint' in (cfg.model.backbone.get('init_cfg') or {}):
        found['model.backbone.init_cfg'] = None  # no download
    found.update({name.replace('__', '.'): value
                  for name, value in more.items()})
    return [f'{name}={value}'.replace(' ', '')
            for name, value in found.items()]


def _shrink(node, names: tuple[str, ...], path: str, found: dict) -> None:
    """Collects the sizes below a node of a config, an eighth of each."""
    items = node.items() if isinstance(node, dict) else enumerate(node) \
        if isinstance(node, (list, tuple)) else ()
    for name, value in items:
        if name == 'num_queries' and name in names:
            # DINO picks them out of the positions: of an area, not a side.
            found[f'{path}.{name}'] = min(value, 16)
        elif name in names and (small := _eighth(value)) is not None:
            found[f'{path}.{name}'] = small
        else:
            _shrink(value, names, f'{path}.{name}', found)


def _eighth(value):
    if isinstance(value, (list, tuple)):
        small = [_eighth(item) for item in value]
        return None if None in small else type(value)(small)
    if isinstance(value, int) and not isinstance(value, bool) and \
            value >= SHRINK:
        # Some models take multiples of the last stride only.
        return value // SHRINK if value % 32 else \
            max(round(value / SHRINK / 32), 1) * 32
    return None


def run_tool(name: str, *args, cwd: Path, code: int = 0,
             timeout: int = 1200) -> str:
    """Output of ``tools/NAME``; by ``bash`` if it is a shell script."""
    tool = str(ROOT / 'tools' / name)
    env = {**os.environ, 'PYTHONPATH': '', 'PYTHON': sys.executable}
    if name.endswith('.py'):
        done = run_forked(tool, *args, cwd=cwd, env=env, merge=True,
                          timeout=timeout)
    else:
        done = subprocess.run(
            ['bash', tool, *map(str, args)], text=True, cwd=cwd, env=env,
            timeout=timeout, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT)
    assert done.returncode == code, done.stdout[-5000:]
    return done.stdout
