"""The demo of segmentation as its user runs it, and mmseg's own tools."""
import json
import os
import shutil
import subprocess
from pathlib import Path

import cv2
import mmseg
import numpy as np
import pytest
import torch
from helpers import ROOT, copy_as_ade20k, shared_path
from mmengine.config import Config
from processes import run_forked, run_fresh

from shiftwise_mm.cli.demo_seg import main
from shiftwise_mm.datasets import (
    make_shapes_dataset,
    read_seg_folder,
)
from shiftwise_mm.engine._demo_run import palette
from shiftwise_mm.engine.demo_seg import (
    demo_seg_config,
    seg_image_scale,
)
from shiftwise_mm.engine.sparsity_report import report_file

CONFIG = ROOT / 'configs/demo/upernet_shiftwise-nano_demo_shapes.py'


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    """A small data set in the place where the config expects it."""
    base = tmp_path_factory.mktemp('demo')
    make_shapes_dataset(base / 'data/shapes', num_train=8, num_val=5,
                        image_size=(128, 96))
    return base / 'data/shapes'


@pytest.fixture(scope='module')
def masks(shapes, tmp_path_factory):
    """The same in the layout of ADE20K, with names of the classes."""
    root = tmp_path_factory.mktemp('masks') / 'own'
    return copy_as_ade20k(shapes, root)


def run_tool(*args, cwd, timeout=600, run=run_forked):
    return run(ROOT / 'tools/demo_seg.py', *args, cwd=cwd, timeout=timeout)


def last_line(done):
    assert done.returncode == 0, done.stderr[-3000:]
    *_, last = done.stdout.splitlines()
    assert last.startswith('demo-seg: {')
    return json.loads(last.removeprefix('demo-seg: '))


@pytest.fixture(scope='module', params=[
    'auto', pytest.param('shift', marks=pytest.mark.slow)])
def trained(request, masks, tmp_path_factory):
    """The folder of a short run of either form, and what it printed."""
    folder = tmp_path_factory.mktemp('trained')
    return folder, run_tool('--data', masks, '--iters', 3, '--form',
                            request.param, cwd=folder, run=run_fresh)


def test_the_tool_trains_and_reports(trained):
    folder, done = trained
    result = last_line(done)
    assert list(result) == ['mIoU', 'seconds', 'checkpoint', 'pictures']
    assert 0 <= result['mIoU'] <= 1
    assert 'classes none, circle, square, triangle, ring' in done.stdout
    weights = torch.load(folder / result['checkpoint'])['state_dict']
    assert weights['decode_head.conv_seg.weight'].shape[0] == 5
    pictures = sorted((folder / result['pictures']).iterdir())
    assert len(pictures) == 5
    # Truth and prediction side by side.
    assert cv2.imread(str(pictures[0])).shape == (96, 256, 3)
    assert 'Iter(train)' in done.stdout + done.stderr  # live progress
    assert 'eta' in done.stdout + done.stderr


@pytest.mark.slow
def test_a_sparse_run(masks, tmp_path):
    done = run_tool('--data', masks, '--iters', 2, '--sparse', .6,
                    cwd=tmp_path)
    result = last_line(done)
    assert result['density'] == pytest.approx(.4, abs=.005)
    assert f'{result["density"]:.4f} of the small kernels' in done.stdout
    assert 'own_auto_sparse0.6' in result['checkpoint']
    report = report_file(tmp_path / result['checkpoint'])
    kept = torch.cat([s.kept.flatten() for s in report.tap_sets]).float()
    assert kept.mean().item() == pytest.approx(result['density'], abs=1e-4)
    assert all(s.masked for s in report.tap_sets)


def test_the_truth_is_on_the_left(trained, masks):
    """Its shapes are painted where the label map has them."""
    folder, done = trained
    for picture in (folder / last_line(done)['pictures']).iterdir():
        left = cv2.imread(str(picture))[:, :128].astype(int)
        labels = cv2.imread(
            str(masks / 'annotations/val' / f'{picture.stem}.png'), -1)
        image = cv2.imread(
            str(masks / 'images/val' / f'{picture.stem}.jpg')).astype(int)
        # Half of the picture is the image, the other half the class's colour.
        paint = 2 * left - image
        for label in np.unique(labels):
            inside = cv2.erode((labels == label).astype(np.uint8),
                               np.ones((5, 5))) > 0
            if inside.sum() > 200:
                colours = paint[inside]
                spread = np.abs(colours - np.median(colours, 0))
                assert np.median(spread) < 12


@pytest.mark.slow
def test_resume_continues_a_run(masks, tmp_path):
    args = ('--data', masks, '--work-dir', tmp_path, '--iters')
    last_line(run_tool(*args, 2, cwd=tmp_path))
    done = run_tool(*args, 4, '--resume', cwd=tmp_path)
    first = last_line(done)
    assert 'resumed epoch: 0, iter: 2' in done.stdout + done.stderr
    resumed = torch.load(tmp_path / 'iter_4.pth')
    assert resumed['meta']['iter'] == 4
    assert resumed['optimizer']['state'][0]['step'] == 4
    # Once more: complete already, evaluated all the same.
    again = last_line(run_tool(*args, 4, '--resume', cwd=tmp_path))
    assert again['mIoU'] == first['mIoU']


def test_a_background_is_painted_black():
    *others, black = palette(('circle', 'square', 'background'))
    assert black == (0, 0, 0)
    assert all(max(colour) == 255 for colour in others)


def test_the_config_follows_the_data(tmp_path):
    folder = read_seg_folder(shared_path('data', 'wbc'))
    width, height = seg_image_scale(folder)
    cfg = demo_seg_config(folder, work_dir=str(tmp_path), max_iters=30)
    assert cfg.model.decode_head.num_classes == 3
    assert cfg.model.data_preprocessor.size == (height, width)
    for loader, split in ((cfg.train_dataloader, folder.train),
                          (cfg.val_dataloader, folder.val),
                          (cfg.test_dataloader, folder.val)):
        data = loader.dataset
        assert data.metainfo.classes == folder.classes
        assert len({*map(tuple, data.metainfo.palette)}) == 3
        assert Path(data.data_prefix.img_path) == split.image_dir.resolve()
        assert Path(data.data_prefix.seg_map_path) == split.map_dir.resolve()
        scales = [step.scale for step in data.pipeline if 'scale' in step]
        assert scales == [(width, height)]
    crop, = (step for step in cfg.train_dataloader.dataset.pipeline
             if step.type == 'RandomCrop')
    assert crop.crop_size == (height, width)
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[1].end == 30
    assert not any('256' in line and '192' in line  # no size is forgotten
                   for line in cfg.pretty_text.splitlines())
    recipe = demo_seg_config(folder, work_dir=str(tmp_path), form='shift')
    assert recipe.train_cfg.max_iters > 100
    assert recipe.model.backbone.shift_form == 'shift'
    fewer = demo_seg_config(folder, work_dir=str(tmp_path), iters_factor=.5)
    assert 2 * fewer.train_cfg.max_iters == recipe.train_cfg.max_iters
    assert fewer.param_scheduler[1].end == fewer.train_cfg.max_iters
    assert (fewer.train_dataloader.batch_size ==
            2 * recipe.train_dataloader.batch_size)
    assert fewer.get('batch_size') is None  # which it would contradict


@pytest.mark.parametrize('own', [False, True], ids=['shapes', 'own data'])
def test_each_kind_of_data_has_its_batches_and_iterations(
        own, shapes, masks, tmp_path, monkeypatch):
    """The shapes those of the recipe, own data half of the iterations."""
    seen = []

    def train(cfg):
        seen.append(cfg)
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('shiftwise_mm.engine.demo_seg.run_demo_seg', train)
    monkeypatch.setattr('shiftwise_mm.datasets.make_shapes_dataset',
                        lambda root: shutil.copytree(shapes, root))
    with pytest.raises(KeyboardInterrupt):
        main(['--data', str(masks)] if own else [])
    recipe, factor = Config.fromfile(CONFIG), 2 if own else 1
    assert seen[0].train_cfg.max_iters * factor == recipe.max_iters
    assert (seen[0].train_dataloader.batch_size ==
            recipe.batch_size * factor)


def map_missing(root):
    path = min((root / 'annotations/train').iterdir())
    path.unlink()
    return path.name


def broken_map(root):
    path = min((root / 'annotations/val').iterdir())
    path.write_text('')
    return path.name


def no_folder(root):
    shutil.rmtree(root / 'images')
    return 'images/train'


@pytest.mark.parametrize('spoil', [map_missing, broken_map, no_folder])
def test_bad_data_is_one_line_and_leaves_nothing(spoil, masks, tmp_path):
    folder = tmp_path / 'data'
    shutil.copytree(masks, folder)
    word = spoil(folder)
    cwd = tmp_path / 'cwd'
    cwd.mkdir()
    done = run_tool('--data', folder, cwd=cwd)
    assert done.returncode == 2
    assert done.stderr.count('\n') == 1 and word in done.stderr
    assert done.stderr.startswith('demo-seg: ')
    assert not list(cwd.iterdir())


@pytest.mark.parametrize('args, words', [
    (('--form', 'fast'), ("'fast'", 'strip')),
    (('--iters', '0'), ('max_iters', '0')),
    (('--sparse', '-.1'), ('sparsity', '[0, 1)', '-0.1')),
])
def test_bad_options_are_one_line(args, words, masks, tmp_path):
    done = run_tool('--data', masks, *args, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count('\n') == 1
    assert all(word in done.stderr for word in words)
    assert not list(tmp_path.iterdir())


def test_make_passes_the_options_on():
    done = subprocess.run(
        ['make', '-n', 'demo-seg', 'DATA=some where', 'ITERS=2', 'FORM=shift',
         'SPARSE=0.6', 'RESUME=1', 'BACKBONE=no'],
        cwd=ROOT, capture_output=True, text=True, check=True)
    line, = (x for x in done.stdout.splitlines() if 'shiftwise demo-seg' in x)
    assert line.split('demo-seg')[1].split() == [
        '--data', "'some", "where'", '--form', "'shift'", '--iters', "'2'",
        '--sparse', "'0.6'", '--resume']


def run_mmseg_tool(name, *args, cwd):
    tool = Path(mmseg.__file__).parent / '.mim/tools' / name
    done = run_fresh(
        tool, CONFIG, *args, '--cfg-options', 'train_cfg.max_iters=2',
        'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2',
        cwd=cwd, env={**os.environ, 'PYTHONPATH': ''})
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_mmsegs_own_tools_take_our_config_unmodified(shapes, tmp_path):
    cwd, work = shapes.parents[1], ('--work-dir', tmp_path)
    log = run_mmseg_tool('train.py', *work, cwd=cwd)
    assert 'mIoU' in log
    log = run_mmseg_tool('test.py', tmp_path / 'iter_2.pth', *work, cwd=cwd)
    assert 'Load checkpoint from' in log and 'mIoU' in log


@pytest.mark.slow
def test_the_demo_reaches_its_figure(tmp_path):
    """On real cells: mIoU 0.92."""
    done = run_tool('--data', shared_path('data', 'wbc'), cwd=tmp_path,
                    timeout=3600)
    result = last_line(done)
    assert result['mIoU'] >= 0.92
