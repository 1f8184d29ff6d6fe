"""The demo as its user runs it, and the stock training tool of mmdet."""
import json
import os
import shutil
from pathlib import Path
from unittest.mock import Mock

import cv2
import mmdet
import pytest
import torch
from helpers import ROOT, shared_path
from PIL import Image
from processes import run_forked, run_fresh

from shiftwise_mm.datasets import make_shapes_dataset, read_coco_folder
from shiftwise_mm.engine.demo import demo_config, image_scale
from shiftwise_mm.engine.hooks import ComparisonPicturesHook
from shiftwise_mm.engine.sparsity_report import report_file

CONFIG = ROOT / 'configs/demo/rtmdet_shiftwise-nano_demo_shapes.py'


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    """A small data set in the place where the config expects it."""
    base = tmp_path_factory.mktemp('demo')
    make_shapes_dataset(base / 'data/shapes', num_train=8, num_val=5,
                        image_size=(128, 96))
    return base / 'data/shapes'


def run_demo_tool(*args, cwd, timeout=600, run=run_forked):
    return run(ROOT / 'tools/demo.py', *args, cwd=cwd, timeout=timeout)


def last_line(done):
    *_, last = done.stdout.splitlines()
    assert last.startswith('demo: {')
    return json.loads(last.removeprefix('demo: '))


@pytest.fixture(scope='module')
def trained(shapes, tmp_path_factory):
    """The folder of a short run, and what it printed."""
    folder = tmp_path_factory.mktemp('trained')
    return folder, run_demo_tool('--data', shapes, '--iters', 3, '--form',
                                 'auto', cwd=folder, run=run_fresh)


@pytest.mark.parametrize('options', [
    None, pytest.param(('--form', 'shift'), marks=pytest.mark.slow),
    ('--backbone', 'resnet18')], ids=['form auto', 'form shift', 'resnet18'])
def test_the_tool_trains_and_reports(options, shapes, trained, tmp_path):
    folder, done = trained if options is None else (tmp_path, run_demo_tool(
        '--data', shapes, '--iters', 3, *options, cwd=tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    result = last_line(done)
    assert list(result) == ['bbox_mAP', 'bbox_mAP_50', 'seconds',
                            'checkpoint', 'pictures']
    assert 0 <= result['bbox_mAP'] <= result['bbox_mAP_50'] <= 1
    assert (folder / result['checkpoint']).is_file()
    pictures = sorted((folder / result['pictures']).iterdir())
    assert len(pictures) == 5
    # Truth and detections side by side.
    assert cv2.imread(str(pictures[0])).shape == (96, 256, 3)
    assert 'Iter(train)' in done.stdout + done.stderr  # live progress
    assert 'eta' in done.stdout + done.stderr


def test_a_sparse_run(shapes, tmp_path):
    """From the tool to what its checkpoint holds."""
    done = run_demo_tool('--data', shapes, '--iters', 3, '--sparse', .6,
                         cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    result = last_line(done)
    assert result['density'] == pytest.approx(.4, abs=.005)
    assert f'{result["density"]:.4f} of the small kernels' in done.stdout
    assert 'shapes_shiftwise-nano_auto_sparse0.6' in result['checkpoint']
    # Both steps but the last change the masks.
    assert (done.stdout + done.stderr).count('taps_dropped') >= 1
    report = report_file(tmp_path / result['checkpoint'])
    kept = torch.cat([s.kept.flatten() for s in report.tap_sets]).float()
    assert kept.mean().item() == pytest.approx(result['density'], abs=1e-4)
    assert all(s.masked for s in report.tap_sets)
    assert len({s.kept.float().mean() for s in report.tap_sets}) > 1  # SNIP


@pytest.mark.parametrize('iters, interval', [(1200, 20), (59, 1), (100, 1)])
def test_the_interval_of_masks_fits_the_length(iters, interval, shapes,
                                               tmp_path):
    folder = read_coco_folder(shapes)
    dense, cfg = (demo_config(folder, work_dir=str(tmp_path),
                              max_iters=iters, sparse=sparse)
                  for sparse in (None, .25))
    hook = cfg.custom_hooks.pop()
    assert hook.type == 'shiftwise_mm.CoarseSparsityHook'
    assert (hook.sparsity, hook.interval) == (.25, interval)
    assert cfg.pretty_text == dense.pretty_text


def test_resume_continues_a_run(shapes, trained, tmp_path):
    folder, half = trained
    assert half.returncode == 0, half.stderr[-3000:]
    checkpoint = folder / last_line(half)['checkpoint']
    shutil.copy(checkpoint, tmp_path)
    (tmp_path / 'last_checkpoint').write_text(
        str(tmp_path / checkpoint.name))  # as mmengine names it
    args = ('--data', shapes, '--work-dir', tmp_path, '--iters')
    done = run_demo_tool(*args, 4, '--resume', cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'resumed epoch: 0, iter: 3' in done.stdout + done.stderr
    resumed = torch.load(tmp_path / 'iter_4.pth')
    assert resumed['meta']['iter'] == 4
    assert resumed['optimizer']['state'][0]['step'] == 4
    # Once more: complete already, evaluated all the same.
    again = run_demo_tool(*args, 4, '--resume', cwd=tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    for name in ('bbox_mAP', 'bbox_mAP_50'):
        assert last_line(again)[name] == last_line(done)[name]


def test_the_shift_form_trains_through_taichi(shapes, tmp_path):
    cfg = demo_config(read_coco_folder(shapes), work_dir=str(tmp_path),
                      form='shift')
    assert cfg.model.backbone.shift_form == 'shift'


def test_the_config_follows_the_data(tmp_path):
    folder = read_coco_folder(shared_path('data', 'bccd'))
    assert image_scale(folder) == (480, 360)
    cfg = demo_config(folder, work_dir=str(tmp_path), max_iters=30)
    text = cfg.pretty_text
    assert cfg.model.bbox_head.num_classes == 3
    assert '256' not in text  # no size is forgotten
    for loader in (cfg.train_dataloader, cfg.val_dataloader,
                   cfg.test_dataloader):
        assert loader.dataset.metainfo.classes == folder.classes
        assert len({*loader.dataset.metainfo.palette}) == len(folder.classes)
        assert Path(loader.dataset.data_root) == folder.root.resolve()
    assert cfg.train_cfg.max_iters == 30
    assert cfg.param_scheduler[1].end == 30
    fewer = demo_config(folder, work_dir=str(tmp_path), iters_factor=.5)
    assert fewer.train_cfg.max_iters == 600


def spoil_category(shapes):
    file = shapes / 'annotations/train.json'
    content = json.loads(file.read_text())
    content['categories'].append(dict(id=99, name='unseen'))
    file.write_text(json.dumps(content))
    return 'unseen'


def spoil_json(shapes):
    (shapes / 'annotations/train.json').write_text('{"images": [')
    return 'train.json'


def empty_json(shapes):
    (shapes / 'annotations/val.json').write_text('')
    return 'val.json'


def remove_image(shapes):
    image = min((shapes / 'train').iterdir())
    image.unlink()
    return image.name


@pytest.mark.parametrize('spoil', [spoil_category, spoil_json, empty_json,
                                   remove_image])
def test_bad_data_is_one_line_and_leaves_nothing(spoil, shapes, tmp_path):
    folder = tmp_path / 'data'
    shutil.copytree(shapes, folder)
    word = spoil(folder)
    cwd = tmp_path / 'cwd'
    cwd.mkdir()
    done = run_demo_tool('--data', folder, cwd=cwd)
    assert done.returncode == 2
    assert done.stderr.count('\n') == 1 and word in done.stderr
    assert done.stderr.startswith('demo: ')
    assert not list(cwd.iterdir())


@pytest.mark.parametrize('args, words', [
    (('--backbone', 'vgg'), ("'vgg'", 'resnet18')),
    (('--form', 'fast'), ("'fast'", 'strip')),
    (('--form', 'channels'), ("form='channels'", 'gradients')),
    (('--backbone', 'resnet18', '--form', 'shift'), ('form', 'resnet18')),
    (('--iters', '0'), ('max_iters', '0')),
    (('--sparse', '1'), ('sparsity', '[0, 1)', '1.0')),
    (('--backbone', 'resnet18', '--sparse', '.5'), ('sparse', 'resnet18')),
])
def test_bad_options_are_one_line(args, words, shapes, tmp_path):
    done = run_demo_tool('--data', shapes, *args, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count('\n') == 1
    assert all(word in done.stderr for word in words)
    assert not list(tmp_path.iterdir())


def run_mmdet_tool(name, *args, cwd, iters):
    tool = Path(mmdet.__file__).parent / '.mim/tools' / name
    done = run_fresh(
        tool, CONFIG, *args, '--cfg-options', f'train_cfg.max_iters={iters}',
        'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2',
        cwd=cwd, env={**os.environ, 'PYTHONPATH': ''})
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.slow
def test_mmdets_own_tools_take_our_config_unmodified(shapes, tmp_path):
    """Training, resuming, and testing of the checkpoint."""
    cwd, work = shapes.parents[1], ('--work-dir', tmp_path)
    log = run_mmdet_tool('train.py', *work, cwd=cwd, iters=2)
    assert 'bbox_mAP' in log
    log = run_mmdet_tool('train.py', *work, '--resume', cwd=cwd, iters=4)
    assert 'resumed epoch: 0, iter: 2' in log
    assert (tmp_path / 'iter_4.pth').is_file()
    log = run_mmdet_tool('test.py', tmp_path / 'iter_4.pth', *work, cwd=cwd,
                         iters=4)
    assert 'Load checkpoint from' in log and 'bbox_mAP' in log


@pytest.mark.parametrize('options, error, words', [
    (dict(score_thr=2), ValueError, r'score_thr.*\[0, 1\].*2'),
    (dict(max_images=-1), ValueError, 'max_images.*0.*-1'),
    (dict(max_images=1.5), TypeError, r'max_images.*integer.*1\.5'),
])
def test_bad_arguments_of_the_pictures_hook(options, error, words):
    with pytest.raises(error, match=words):
        ComparisonPicturesHook(**options)


def test_the_pictures_hook_gives_the_surest_last(tmp_path):
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData
    image = tmp_path / 'x.jpg'
    Image.new('RGB', (8, 8)).save(image)
    scores = torch.tensor([.9, .7, .4])
    sample = DetDataSample(metainfo=dict(img_path=str(image)),
                           pred_instances=InstanceData(scores=scores))
    runner = Mock(work_dir=str(tmp_path))
    ComparisonPicturesHook().after_val_iter(runner, 0, outputs=[sample])
    painted = runner.visualizer.add_datasample.call_args.kwargs['data_sample']
    assert torch.equal(painted.pred_instances.scores, scores.flip(0))
    assert torch.equal(sample.pred_instances.scores, scores)  # evaluated next


@pytest.mark.slow
def test_the_demo_reaches_its_figure(tmp_path):
    """AP50 of at least 0.60 on the generated images, in the default recipe."""
    done = run_demo_tool(cwd=tmp_path, timeout=3600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert last_line(done)['bbox_mAP_50'] >= 0.60
