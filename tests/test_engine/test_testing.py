"""tools/test.py as its user runs it: classes, boxes and segments."""
import json
import os
import pickle
import re
from pathlib import Path

import cv2
import mmdet
import numpy as np
import pytest
import torch
from helpers import (
    ROOT,
    assert_near,
    make_image_folder,
    published_preprocessing,
    randomise_norms,
    run_python,
)
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image
from processes import run_forked, run_fresh

from shiftwise_mm.datasets import make_shapes_dataset
from shiftwise_mm.engine.testing import InputError, config_for_test
from shiftwise_mm.registry import MODELS

CLASSIFIER = ROOT / 'configs/classification/shiftwise-tiny_in1k-224.py'
DETECTOR = ROOT / 'configs/demo/rtmdet_shiftwise-nano_demo_shapes.py'
CLASSES = dict(a=3, b=2, c=2, d=3, e=1, f=2)
# The network of the demo, and six classes.
NANO = ('model.backbone.arch=nano', 'model.head.in_channels=192',
        f'model.head.num_classes={len(CLASSES)}',
        'model.backbone.layer_scale_init_value=1.0',
        'test_dataloader.persistent_workers=False',
        'test_dataloader.num_workers=0', 'test_dataloader.batch_size=5')

SEGMENTOR = """
_base_ = 'mmseg::_base_/default_runtime.py'
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[100.] * 3, std=[50.] * 3,
        bgr_to_rgb=True, pad_val=0, seg_pad_val=255, size=(64, 64)),
    backbone=dict(
        type='shiftwise_mm.ShiftWiseNet',
        arch=dict(embed_dims=(8, 12, 16, 20), depths=(1, 1, 1, 1)),
        kernel_sizes=(13, 13, 7, 5), layer_scale_init_value=1.0),
    decode_head=dict(
        type='FCNHead', in_channels=20, in_index=3, channels=8, num_convs=1,
        num_classes=3, norm_cfg=dict(type='BN'),
        loss_decode=dict(type='CrossEntropyLoss')),
    test_cfg=dict(mode='whole'))
test_dataloader = dict(
    batch_size=1, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset', data_root='data', img_suffix='.png',
        data_prefix=dict(img_path='img', seg_map_path='seg'),
        metainfo=dict(classes=('a', 'b', 'c'),
                      palette=[[0, 0, 0], [0, 255, 0], [255, 0, 0]]),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs')]))
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    visualization=dict(type='SegVisualizationHook', interval=1))
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='TestTimeAug', transforms=[
        [dict(type='RandomFlip', prob=p, direction='horizontal')
         for p in (0., 1.)],
        [dict(type='LoadAnnotations')], [dict(type='PackSegInputs')]])]
"""


def run_tool(config, checkpoint, *args, cwd, tool=ROOT / 'tools/test.py',
             code=0, run=run_forked):
    done = run(tool, config, checkpoint, *args, cwd=cwd,
               env={**os.environ, 'PYTHONPATH': ''})
    assert done.returncode == code, done.stderr[-3000:]
    return done


def refusals(*runs, cwd):
    """The line by which the tool refuses each run, all in one process."""
    code = f"""
        import runpy
        main = runpy.run_path({str(ROOT / 'tools/test.py')!r})['main']
        for args in {[list(map(str, args)) for args in runs]!r}:
            try:
                main(args)
            except SystemExit as error:
                print('code', error.code, flush=True)
    """
    out = run_python(code, cwd, stderr=True, run=run_forked)
    lines = [line for line in out if line.startswith(('test: ', 'code '))]
    assert lines[1::2] == ['code 2'] * len(runs)
    return lines[::2]


def metrics_in(work_dir):
    file, = work_dir.glob('*/*.json')
    return json.loads(file.read_text())


def save(cfg, file, scope):
    """A model of the config with weights that are worth a test."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(cfg.model)
    randomise_norms(model)
    for parameter in model.parameters():
        if parameter.ndim == 4:
            torch.nn.init.kaiming_normal_(parameter)
    torch.save(dict(state_dict=model.state_dict(), meta={}), file)
    return model.eval()


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
    """Folder, images, model and checkpoint; the images are as in the config.
    """
    base = tmp_path_factory.mktemp('classifier')
    images = make_image_folder(base / 'data/imagenet/val', CLASSES)
    cfg = Config.fromfile(CLASSIFIER)
    cfg.merge_from_dict(dict(option.split('=') for option in NANO[:2]))
    cfg.model.head.update(in_channels=192, num_classes=len(CLASSES))
    cfg.model.backbone.layer_scale_init_value = 1.
    model = save(cfg, base / 'model.pth', 'mmengine')
    # A head that tells the images apart, or every guess would be the same.
    x = torch.stack([published_preprocessing(path) for path, _ in images])
    torch.manual_seed(2)
    with torch.no_grad():
        model.head.norm.weight.normal_()
        # Small scores: larger ones magnify the rounding of the backbone.
        model.head.fc.weight.normal_(std=.25)
        model.head.fc.bias.sub_(model(x).mean(0))
        torch.save(model.state_dict(), base / 'model.pth')
        return base, images, model.double()(x.double()).float()


@pytest.mark.slow
def test_a_classifier(classifier, tmp_path):
    base, images, logits = classifier
    done = run_tool(
        CLASSIFIER, 'model.pth', '--work-dir', tmp_path / 'work', '--out',
        tmp_path / 'out.pkl', '--cfg-options', *NANO, cwd=base, run=run_fresh)
    labels = torch.tensor([label for _, label in images])
    hits = (logits.argsort(1, descending=True) == labels[:, None]).float()
    expected = {f'accuracy/top{k}': 100 * hits[:, :k].sum(1).mean().item()
                for k in (1, 5)}
    assert 0 < expected['accuracy/top1'] < expected['accuracy/top5'] < 100
    found = metrics_in(tmp_path / 'work')
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-3), name
        assert f'{name}: {value:.4f}' in done.stdout + done.stderr
    results = pickle.loads((tmp_path / 'out.pkl').read_bytes())
    assert [r['img_path'] for r in results] == [
        str(path.relative_to(base)) for path, _ in images]
    for result, logit in zip(results, logits, strict=True):
        assert_near(result['pred_score'], logit.softmax(0))


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    base = tmp_path_factory.mktemp('detector')
    make_shapes_dataset(base / 'data/shapes', num_train=4, num_val=5,
                        image_size=(128, 96))
    save(Config.fromfile(DETECTOR), base / 'model.pth', 'mmdet')
    return base


def boxes_in(file):
    return [torch.cat([r['pred_instances'][name].flatten()
                       for name in ('bboxes', 'scores', 'labels')])
            for r in pickle.loads(file.read_bytes())]


def test_a_detector(detector, tmp_path):
    """It writes results, metrics and pictures."""
    done = run_tool(DETECTOR, 'model.pth', '--work-dir', tmp_path, '--out',
                    tmp_path / 'out.pkl', '--show-dir', 'shown',
                    '--cfg-options',
                    'default_hooks.visualization.score_thr=0.', cwd=detector,
                    run=run_fresh)
    assert 'bbox_mAP' in done.stdout + done.stderr
    assert metrics_in(tmp_path).keys() >= {'coco/bbox_mAP'}
    boxes = boxes_in(tmp_path / 'out.pkl')
    assert len(boxes) == 5 and boxes[0].numel() > 10
    shown = list(tmp_path.glob('*/shown/*'))
    assert len(shown) == 5
    assert all(cv2.imread(str(path)).shape[0] == 96 for path in shown)


@pytest.mark.slow
@pytest.mark.parametrize('tta', [[], ['--tta']], ids=['plain', 'tta'])
def test_a_detector_as_by_mmdets_own_tool(tta, detector, tmp_path):
    theirs = Path(mmdet.__file__).parent / '.mim/tools/test.py'
    for name, tool in (('ours', ROOT / 'tools/test.py'), ('theirs', theirs)):
        done = run_tool(DETECTOR, 'model.pth', '--work-dir', tmp_path / name,
                        '--out', tmp_path / f'{name}.pkl', *tta,
                        cwd=detector, tool=tool)
        assert 'bbox_mAP' in done.stdout + done.stderr
    one, other = (metrics_in(tmp_path / name) for name in ('ours', 'theirs'))
    assert one.keys() == other.keys() >= {'coco/bbox_mAP'}
    one, other = (boxes_in(tmp_path / f'{name}.pkl')
                  for name in ('ours', 'theirs'))
    assert len(one) == 5 and one[0].numel() > 10
    for mine, their in zip(one, other, strict=True):
        assert torch.equal(mine, their)


@pytest.fixture(scope='module')
def segmentor(tmp_path_factory):
    base = tmp_path_factory.mktemp('segmentor')
    rng = np.random.default_rng(0)
    for folder, shape, top in (('img', (64, 64, 3), 256),
                               ('seg', (64, 64), 3)):
        (base / 'data' / folder).mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, top, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(base / 'data' / folder / f'{i}.png')
    (base / 'config.py').write_text(SEGMENTOR)
    save(Config.fromfile(base / 'config.py'), base / 'model.pth', 'mmseg')
    return base


def test_a_segmentor(segmentor, tmp_path):
    """Its label maps against the figure, plain and over mirror images."""
    labels = label_maps(segmentor / 'data/seg')
    guesses = []
    for options in [], ['--tta']:
        work = tmp_path / f'work{len(options)}'
        run_tool('config.py', 'model.pth', '--work-dir', work, '--out',
                 work / 'maps', '--show-dir', work / 'shown', *options,
                 cwd=segmentor)
        found = label_maps(work / 'maps')
        ious = [((labels == c) & (found == c)).sum()
                / ((labels == c) | (found == c)).sum() for c in range(3)]
        assert metrics_in(work)['mIoU'] == pytest.approx(
            100 * np.mean(ious), abs=.01)
        assert len(list((work / 'shown').rglob('*.png'))) == 3
        guesses.append(found)
    plain, mirrored = guesses
    assert (plain != mirrored).any() and len(np.unique(plain)) > 1


def label_maps(folder):
    return np.stack([np.array(Image.open(folder / f'{i}.png'))
                     for i in range(3)])


def write(path, text):
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize('name, text, words', [
    ('gone.py', None, 'gone.py.*FileNotFoundError'),
    ('folder', None, 'folder.*cannot be read'),
    ('broken.py', 'model = dict(', 'broken.py.*SyntaxError'),
    ('name.py', 'model = undefined', 'name.py.*undefined'),
    ('base.py', "_base_ = 'mmdet::gone/gone.py'", 'base.py.*gone'),
    ('empty.py', 'model = dict()', 'empty.py has no test_dataloader, test_e'),
])
def test_a_bad_config_is_one_line(name, text, words, tmp_path):
    (tmp_path / 'folder').mkdir()
    checkpoint = write(tmp_path / 'model.pth', '')
    if text is not None:
        write(tmp_path / name, text)
    with pytest.raises(InputError, match=words) as caught:
        config_for_test(str(tmp_path / name), checkpoint)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('options, words', [
    (dict(checkpoint='gone.pth'), 'checkpoint gone.pth does not exist'),
    (dict(out='results.json'), r"out.*\.pkl.*'results.json'"),
    (dict(tta=True), '224.py has no tta_model, tta_pipeline'),
    (dict(show=True), '224.py has no default_hooks.visualization'),
    (dict(show_dir='x'), '224.py has no default_hooks.visualization'),
    (dict(options={'model.backbone.type.x': 1}), '224.py cannot be read'),
], ids=str)
def test_bad_options_are_one_line(options, words, tmp_path):
    checkpoint = write(tmp_path / 'model.pth', '')
    with pytest.raises(InputError, match=words):
        config_for_test(str(CLASSIFIER),
                        **{**dict(checkpoint=checkpoint), **options})


def test_the_work_dir_is_that_of_the_option_config_or_name(tmp_path):
    checkpoint = write(tmp_path / 'model.pth', '')
    config = write(tmp_path / 'mine.py', f"_base_ = {str(CLASSIFIER)!r}\n")
    assert config_for_test(config, checkpoint).work_dir == 'work_dirs/mine'
    options = dict(options=dict(work_dir='there'))
    assert config_for_test(config, checkpoint, **options).work_dir == 'there'
    options['work_dir'] = 'here'
    assert config_for_test(config, checkpoint, **options).work_dir == 'here'


def test_show_reaches_the_hook(tmp_path):
    checkpoint = write(tmp_path / 'model.pth', '')
    cfg = config_for_test(str(DETECTOR), checkpoint, show=True, wait_time=7)
    hook = cfg.default_hooks.visualization
    assert (hook.draw, hook.show, hook.wait_time) == (True, True, 7)


def test_a_missing_file_is_refused_at_once(tmp_path):
    done = run_tool(CLASSIFIER, 'gone.pth', cwd=tmp_path, code=2)
    assert done.stderr.splitlines()[-1] == \
        'test: checkpoint gone.pth does not exist'
    assert not list(tmp_path.iterdir())


def bad_checkpoints(folder, good):
    """Files of every kind that must be refused."""
    for name in ('garbage', 'text', 'cut', 'list', 'callable', 'klass',
                 'other'):
        file = folder / f'{name}.pth'
        if name == 'garbage':
            file.write_bytes(b'\x80\x02garbage')
        elif name == 'text':
            file.write_text('not a checkpoint')
        elif name == 'cut':
            file.write_bytes(good.read_bytes()[:5000])
        elif name == 'list':
            torch.save([1, 2], file)
        elif name == 'callable':
            torch.save(dict(state_dict={}, hook=os.system), file)
        elif name == 'klass':
            torch.save(dict(state_dict={}, path=Path()), file)
        else:
            torch.save(torch.nn.Linear(2, 2).state_dict(), file)
        yield file


def test_what_does_not_fit_is_one_line(classifier, tmp_path):
    base, *_ = classifier
    make_image_folder(tmp_path / 'data', CLASSES)
    write(tmp_path / 'data/b/0.jpg', 'no image')
    data = f'test_dataloader.dataset.data_root={tmp_path / "data"}'
    files = list(bad_checkpoints(tmp_path, base / 'model.pth'))
    causes = dict(text='safe to load: Unsupported operand 110$',
                  callable='safe to load.*system', cut='OSError',
                  klass='GLOBAL pathlib.*Path was not an allowed',
                  other='ValueError: ShiftWiseNet')
    cases = [(file, [], f'^test: checkpoint {file} cannot be loaded: '
              f'.*{causes.get(file.stem, "")}') for file in files] + [
        ('model.pth', options, words) for options, words in (
            (['test_dataloader.dataset.data_root=gone'],
             'gone does not exist'),
            (['model.head.type=shiftwise_mm.Gone'], 'Gone'),
            (['model.backbone.kernel_sizes=3'], 'kernel_sizes.*3'),
            (['test_evaluator.topk=0'], 'topk.*0'),
            (['test_evaluator.topk=7'], '^test: topk=7 needs .* model has 6'),
            # From a worker process, too.
            ([data], f'^test: {tmp_path}/data/b/0.jpg cannot be read'),
            ([data, 'test_dataloader.num_workers=1'],
             f'^test: {tmp_path}/data/b/0.jpg cannot be read'))]
    lines = refusals(*((CLASSIFIER, file, '--work-dir', tmp_path / 'work',
                        '--cfg-options', *NANO, *options)
                       for file, options, _ in cases), cwd=base)
    for line, (*_, words) in zip(lines, cases, strict=True):
        assert re.search(words, line), (line, words)
        assert 'weights_only' not in line
