"""tools/predict.py as its user runs it: boxes and label maps."""
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import ROOT, randomise_norms
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image
from processes import run_forked, run_fresh
from tasks import DETECTOR, SEGMENTOR

from shiftwise_mm.engine._predictors import Predictor
from shiftwise_mm.engine.inputs import InputError
from shiftwise_mm.engine.prediction import predict
from shiftwise_mm.engine.prediction_inputs import (
    UnreadableImage,
    find_images,
    read_image,
)
from shiftwise_mm.registry import MODELS

META = dict(classes=('cat', 'dog', 'cow'),
            palette=[(250, 0, 0), (0, 250, 0), (0, 0, 250)])
MEAN = dict(mean=[100.] * 3, std=[50.] * 3, bgr_to_rgb=True)
PIPELINES = dict(
    mmdet=[dict(type='LoadImageFromFile'),
           dict(type='Resize', scale=(96, 64), keep_ratio=True),
           dict(type='LoadAnnotations', with_bbox=True),
           dict(type='PackDetInputs', meta_keys=(
               'img_id', 'img_path', 'ori_shape', 'img_shape',
               'scale_factor'))],
    mmseg=[dict(type='LoadImageFromFile'),
           dict(type='Resize', scale=(96, 64), keep_ratio=True),
           dict(type='LoadAnnotations'), dict(type='PackSegInputs')])
DATASETS = dict(mmdet='CocoDataset', mmseg='BaseSegDataset')
VISUALIZERS = dict(mmdet='DetLocalVisualizer', mmseg='SegLocalVisualizer')


def make_model(folder, scope, model, **changes):
    """``config.py`` and ``model.pth`` of a miniature, with random weights."""
    folder.mkdir(exist_ok=True)
    # Strips: nothing to compile.
    model = {**model, **changes,
             'backbone': {**model['backbone'], 'shift_form': 'strip'}}
    cfg = Config(dict(
        model=model, default_scope=scope, test_dataloader=dict(dataset=dict(
            type=DATASETS[scope], pipeline=PIPELINES[scope])),
        visualizer=dict(type=VISUALIZERS[scope])))
    cfg.dump(folder / 'config.py')
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope):
        built = MODELS.build(cfg.model)
    randomise_norms(built)
    for parameter in built.parameters():
        if parameter.ndim == 4:
            torch.nn.init.kaiming_normal_(parameter)
    torch.save(dict(state_dict=built.state_dict(),
                    meta=dict(dataset_meta=META)), folder / 'model.pth')
    return folder / 'config.py', folder / 'model.pth'


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    return make_model(
        tmp_path_factory.mktemp('detector'), 'mmdet', DETECTOR,
        data_preprocessor=dict(type='mmdet.DetDataPreprocessor', **MEAN,
                               pad_size_divisor=32))


@pytest.fixture(scope='module')
def segmentor(tmp_path_factory):
    return make_model(
        tmp_path_factory.mktemp('segmentor'), 'mmseg', SEGMENTOR,
        data_preprocessor=dict(type='mmseg.SegDataPreProcessor', **MEAN,
                               pad_val=0, seg_pad_val=255,
                               test_cfg=dict(size_divisor=32)))


def paint(path, size=(64, 48), seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    Image.fromarray(pixels).resize(size).save(path, **options)
    return path


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """Images of several sizes, two of them in need of care by their names,
    and three files that are no whole image.
    """
    root = tmp_path_factory.mktemp('photos')
    paint(root / 'a/1.jpg', seed=1)
    paint(root / 'b/1.jpg', (48, 80), seed=2)
    paint(root / 'b/1.png', (81, 49), seed=3)
    paint(root / 'c/deep/er/x [1].png', seed=4)
    paint(root / '.hidden/y.png')
    (root / 'b/empty.jpg').touch()
    (root / 'b/text.png').write_text('this is no image')
    whole = paint(root / 'b/torn.jpg', (160, 160), seed=5)
    whole.write_bytes(whole.read_bytes()[:-1000])
    (root / 'b/notes.txt').write_text('not looked at')
    return root


GOOD = ['a/1', 'b/1_jpg', 'b/1_png', 'c/deep/er/x [1]']
BAD = ['b/empty.jpg', 'b/text.png', 'b/torn.jpg']


def files(folder):
    return sorted(str(f.relative_to(folder)) for f in folder.rglob('*')
                  if f.is_file())


def run_tool(*args, cwd='.', run=run_forked):
    return run(ROOT / 'tools/predict.py', *args, cwd=cwd,
               env={**os.environ, 'PYTHONPATH': ''})


def test_a_detector_by_the_tool(detector, photos, tmp_path):
    done = run_tool(*detector, 'photos', '--out', 'photos/out', '--batch-size',
                    3, '--score-thr', .4, '--device', 'cpu', run=run_fresh,
                    cwd=copy_of(photos, tmp_path))
    assert done.returncode == 1, done.stderr
    out = tmp_path / 'photos/out'
    assert files(out) == sorted(
        [f'preds/{n}.json' for n in GOOD] + [f'vis/{n}.jpg' for n in GOOD]
        + ['summary.json'])
    for name in BAD:
        assert f'predict: skipped photos/{name}: ' in done.stderr
    assert '7/7' in done.stderr  # the progress bar
    last = json.loads(done.stdout.splitlines()[-1].partition('predict: ')[2])
    assert last == dict(images=4, skipped=3, out='photos/out')
    summary = json.loads((out / 'summary.json').read_text())
    assert summary['classes'] == list(META['classes'])
    assert [e['file'] for e in summary['skipped']] == [
        f'photos/{n}' for n in BAD]
    for entry, name in zip(summary['images'], GOOD, strict=True):
        found = json.loads((out / entry['prediction']).read_text())
        assert entry['prediction'] == f'preds/{name}.json'
        assert set(found) == {'labels', 'scores', 'bboxes'}
        assert entry['detections'] == sum(s >= .4 for s in found['scores'])
    assert Image.open(out / 'vis/b/1_png.jpg').size == (81, 49)
    # What lies in the folder of results is no input.
    again = run_tool(*detector, 'photos', '--out', 'photos/out',
                     '--no-pictures', cwd=tmp_path)
    assert again.returncode == 1
    assert '7/7' in again.stderr


def copy_of(photos, folder):
    shutil.copytree(photos, folder / 'photos')
    return folder


def test_detections_are_those_of_mmdet(detector, photos, tmp_path):
    """The same file through mmdet's own way, without a batch."""
    from mmdet.apis import DetInferencer
    files = [photos / 'a/1.jpg', photos / 'b/1.png']
    predict(*map(str, detector), files, tmp_path, batch_size=2, device='cpu')
    own = DetInferencer(*map(str, detector), device='cpu',
                        show_progress=False)
    for file, name in zip(files, ('a/1', 'b/1'), strict=True):
        expected = own(str(file))['predictions'][0]
        found = json.loads((tmp_path / f'preds/{name}.json').read_text())
        assert len(found['labels']) > 0
        assert found['labels'] == expected['labels']
        for key in 'scores', 'bboxes':
            np.testing.assert_allclose(found[key], expected[key], rtol=1e-4,
                                       atol=1e-3)


def test_a_segmentor_by_the_tool(segmentor, photos, tmp_path):
    done = run_tool(*segmentor, photos / 'a', f'{photos}/b/*.png',
                    f'{photos}/c/**/*.png', '--out', tmp_path / 'out',
                    '--batch-size', 4)
    assert done.returncode == 1, done.stderr  # text.png
    out = tmp_path / 'out'
    names = ['a/1', 'b/1', 'c/deep/er/x [1]']
    assert files(out) == sorted(
        [f'preds/{n}.{s}' for n in names for s in ('json', 'png')]
        + [f'vis/{n}.jpg' for n in names] + ['summary.json'])
    from mmseg.apis import MMSegInferencer
    own = MMSegInferencer(*map(str, segmentor), device='cpu')
    own.show_progress = False
    summary = json.loads((out / 'summary.json').read_text())
    for entry, name in zip(summary['images'], names, strict=True):
        labels = np.asarray(Image.open(out / f'preds/{name}.png'))
        assert (labels == own(entry['file'])['predictions']).all()
        found = json.loads((out / f'preds/{name}.json').read_text())
        assert (found['height'], found['width']) == labels.shape
        for item in found['classes']:
            pixels = (labels == item['label']).sum()
            assert item['pixels'] == pixels > 0
            assert item['share'] == pixels / labels.size
            assert item['name'] == META['classes'][item['label']]
        assert sum(entry['shares'].values()) == pytest.approx(1)
    assert len({item for entry in summary['images']
                for item in entry['shares']}) > 1


def test_labels_are_painted_in_the_colours_of_the_checkpoint(
        segmentor, tmp_path):
    grey = Image.new('RGB', (64, 64), (128, 128, 128))
    grey.save(tmp_path / 'grey.png')
    predict(*map(str, segmentor), [tmp_path / 'grey.png'], tmp_path / 'out')
    label = np.asarray(Image.open(tmp_path / 'out/preds/grey.png'))[-2, -2]
    painted = np.asarray(Image.open(tmp_path / 'out/vis/grey.jpg'))[-2, -2]
    assert painted.argmax() == np.argmax(META['palette'][label])


@pytest.mark.parametrize('sure', [0, 1])
def test_the_surest_of_several_boxes_is_on_top(sure, detector, tmp_path,
                                               monkeypatch):
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData
    Image.new('RGB', (96, 96), (128, 128, 128)).save(tmp_path / 'grey.png')
    labels = [sure, 1 - sure]  # as mmdet sorts them, by falling score
    sample = DetDataSample(pred_instances=InstanceData(
        labels=torch.tensor(labels), scores=torch.tensor([.9, .4]),
        bboxes=torch.tensor([[20., 20., 70., 70.]] * 2)))
    monkeypatch.setattr(Predictor, '__call__', lambda *_: [sample])
    predict(*map(str, detector), [tmp_path / 'grey.png'], tmp_path / 'out')
    painted = np.asarray(Image.open(tmp_path / 'out/vis/grey.jpg'))
    assert painted[60, 70].argmax() == sure
    assert json.loads((tmp_path / 'out/preds/grey.json').read_text())[
        'labels'] == labels


@pytest.mark.parametrize('which', ['detector', 'segmentor'])
def test_checkpoints_without_classes_or_colours(which, request, tmp_path):
    """No names of COCO or Cityscapes for other labels."""
    config, checkpoint = request.getfixturevalue(which)
    content = torch.load(checkpoint)
    cfg = Config.fromfile(config)
    image = paint(tmp_path / 'x.png')
    cfg.test_dataloader.dataset.metainfo = dict(classes=('x', 'y', 'z'))
    for meta, classes in ((dict(dataset_meta=dict(classes=('p', 'q', 'r'))),
                           ['p', 'q', 'r']), ({}, ['x', 'y', 'z'])):
        torch.save({**content, 'meta': meta}, tmp_path / 'model.pth')
        summary = predict(cfg, str(tmp_path / 'model.pth'), [image],
                          tmp_path / 'out')
        assert summary.classes == classes
        assert summary.task in {'detector': 'detection',
                                'segmentor': 'segmentation'}[which]


def test_names_of_the_data_set_or_numbers(segmentor, tmp_path):
    config, checkpoint = segmentor
    content = torch.load(checkpoint)
    torch.save({**content, 'meta': {}}, tmp_path / 'model.pth')
    summary = predict(str(config), str(tmp_path / 'model.pth'),
                      [paint(tmp_path / 'x.png')], tmp_path / 'out')
    assert summary.classes == ['0', '1', '2']


def test_what_only_one_reader_knows_is_read(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    for suffix in 'pcx', 'tga', 'png':
        Image.fromarray(pixels).save(tmp_path / f'x.{suffix}')
        found = read_image(tmp_path / f'x.{suffix}')
        assert (found == pixels[..., ::-1]).all(), suffix
    # Turned by a quarter, as cameras write it.
    turned = Image.fromarray(pixels)
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / 'x.tiff', exif=exif)
    assert read_image(tmp_path / 'x.tiff').shape == (7, 9, 3)
    grey = read_image(tmp_path / 'x.png', flag='grayscale')
    assert grey.shape == (9, 7)


@pytest.mark.parametrize('name, words', zip(
    BAD, ['empty', 'no image', 'broken'], strict=True))
def test_broken_images_are_refused(photos, name, words):
    with pytest.raises(UnreadableImage, match=words):
        read_image(photos / name)


def test_names_of_results_do_not_collide(tmp_path):
    for name in ('a/1.jpg', 'b/1.jpg', 'b/1.PNG', 'b/1_PNG.tif', 'b/2.gif'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / 'b/back').symlink_to(tmp_path / 'b')
    found = find_images([tmp_path, tmp_path / 'a/1.jpg',
                         f'{tmp_path}/b/*.gif'])
    names = {str(image.path.relative_to(tmp_path)): str(image.name)
             for image in found}
    assert names == {'a/1.jpg': 'a/1', 'b/1.PNG': 'b/1_PNG_',
                     'b/1.jpg': 'b/1_jpg', 'b/1_PNG.tif': 'b/1_PNG',
                     'b/2.gif': 'b/2'}
    assert [str(i.name) for i in find_images([tmp_path / 'b/2.gif'])] == ['2']
    assert [str(i.name) for i in find_images([tmp_path / 'a'])] == ['1']


REFUSED = {
    'no such config': (('missing.py', '{pth}', 'x.png'), 'missing.py'),
    'no such checkpoint': (('{cfg}', 'missing.pth', 'x.png'), 'missing.pth'),
    'no such image': (('{cfg}', '{pth}', 'nothing.jpg'), 'nothing.jpg'),
    'no match': (('{cfg}', '{pth}', 'no*.jpg'), r'no*.jpg matches nothing'),
    'an empty folder': (('{cfg}', '{pth}', 'empty'), 'holds no images'),
    'a text for a checkpoint': (('{cfg}', 'text.pth', 'x.png'), 'text.pth'),
    'a pickled function': (('{cfg}', 'evil.pth', 'x.png'), 'evil.pth'),
    'weights of another model': (('{cfg}', '{other}', 'x.png'),
                                 'is of another model'),
    'a score': (('{cfg}', '{pth}', 'x.png', '--score-thr', '30'),
                'score_thr must be in [0, 1], got 30'),
    'a batch': (('{cfg}', '{pth}', 'x.png', '--batch-size', '0'),
                'batch_size must be at least 1'),
    'a device': (('{cfg}', '{pth}', 'x.png', '--device', 'cuda:9'),
                 "device 'cuda:9' cannot be used"),
    'no device': (('{cfg}', '{pth}', 'x.png', '--device', 'toaster'),
                  "device 'toaster'"),
    'a classifier': (('cls.py', '{pth}', 'x.png'), 'mmpretrain'),
    'no pipeline': (('bare.py', '{pth}', 'x.png'), 'LoadImageFromFile'),
    'a file for the folder': (('{cfg}', '{pth}', 'x.png', '--out', 'x.png'),
                              'x.png'),
    'no out': (('{cfg}', '{pth}', 'x.png', '--device'), '--device'),
}


@pytest.fixture(scope='module')
def refusals(detector, segmentor, tmp_path_factory):
    """Exit code and stderr of each case, all in one process."""
    base = tmp_path_factory.mktemp('refused')
    paint(base / 'x.png')
    (base / 'empty').mkdir()
    (base / 'text.pth').write_text('hello')
    torch.save(dict(state_dict=os.system), base / 'evil.pth')
    cfg = Config.fromfile(detector[0])
    cfg.test_dataloader.dataset.pipeline = []
    cfg.dump(base / 'bare.py')
    cfg.model = dict(type='shiftwise_mm.ImageClassifier')
    cfg.dump(base / 'cls.py')
    names = dict(cfg=detector[0], pth=detector[1], other=segmentor[1])
    runs = {case: [part.format(**names) for part in args]
            + ['--out', 'out'] * ('--out' not in args
                                  and args[-1] != '--device')
            for case, (args, _) in REFUSED.items()}
    code = f"""
import contextlib, io, json
from shiftwise_mm.cli.predict import main
found = {{}}
for case, args in {runs!r}.items():
    with contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            main(args)
        except SystemExit as error:
            found[case] = error.code, err.getvalue()
print('found', json.dumps(found))
"""
    done = run_forked('-c', code, cwd=base)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.rpartition('found ')[2])
    assert not (base / 'out').exists()
    return found


@pytest.mark.parametrize('case', REFUSED)
def test_wrong_arguments_are_one_line(case, refusals):
    code, err = refusals[case]
    assert code == 2
    assert err.startswith('predict: ') and err.count('\n') == 1, err
    assert REFUSED[case][1] in err


def test_a_failure_of_the_model_names_the_image(detector, tmp_path,
                                                monkeypatch):
    from shiftwise_mm.engine import prediction
    load = prediction.load_predictor

    def failing(*args):
        model = load(*args)
        model.inferencer.model.forward = None
        return model

    monkeypatch.setattr(prediction, 'load_predictor', failing)
    with pytest.raises(InputError, match='fails on .*x.png'):
        predict(*map(str, detector), [paint(tmp_path / 'x.png')],
                tmp_path / 'out')
    assert not files(tmp_path / 'out')


def test_a_shipped_config_by_its_name(tmp_path):
    """``shiftwise_mm::``, as the README writes bases."""
    name = 'shiftwise_mm::demo/rtmdet_shiftwise-nano_demo_shapes.py'
    with pytest.raises(InputError, match='checkpoint missing.pth does not'):
        predict(name, 'missing.pth', [paint(tmp_path / 'x.png')],
                tmp_path / 'out')


def test_images_are_paths_too(photos):
    found = find_images([Path(photos, 'c/deep/er/x [1].png')])
    assert [str(i.name) for i in found] == ['x [1]']
