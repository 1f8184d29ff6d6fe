"""tools/deploy.py: what it writes is the same function, and is refused else.
"""
import copy
import pickle
import re

import numpy as np
import pytest
import torch
import torch.nn as nn
from helpers import ROOT, assert_near, randomise_norms
from mmengine.config import Config
from mmengine.registry import MODELS
from processes import run_forked, run_fresh
from sparse import BACKBONE, train
from tasks import DETECTOR

from shiftwise_mm.datasets import make_shapes_dataset
from shiftwise_mm.engine import deploy
from shiftwise_mm.engine.deploy import deploy_changes, deploy_files
from shiftwise_mm.engine.inputs import InputError
from shiftwise_mm.engine.model_files import build_model, load_weights

MINI = dict(embed_dims=(8, 12), depths=(1, 1))
LONG = dict(arch=MINI, kernel_sizes=(17, 9))
NETS = {
    'unirep': dict(type='ShiftWiseNet', **LONG),
    'slak style': dict(type='ShiftWiseNet', style='slak', **LONG),
    'SLaK': dict(type='SLaK', **LONG),
    'SLaK shiftwise': dict(type='SLaK', form='shiftwise', **LONG),
    'SLaK gated': dict(type='SLaK', form='shared_gated', **LONG),
    'UniRepLKNet': dict(type='UniRepLKNet',
                        arch=dict(**MINI, kernel_sizes=(13, 3))),
    'ConvNeXt': dict(type='ConvNeXt', arch=MINI),
}


@MODELS.register_module(name='DeployWrapper', force=True)
class Wrapper(nn.Module):
    """A backbone deep in a model, and one in a list."""

    def __init__(self, net, more=()):
        super().__init__()
        self.net = nn.ModuleDict(dict(
            encoder=MODELS.build(net['encoder'])))
        self.more = nn.ModuleList(map(MODELS.build, more))


def write(folder, model, scope=None, backbone=None):
    """Config and checkpoint of a model whose norms mean something."""
    cfg = Config(dict(model=copy.deepcopy(model)))
    if scope:
        cfg.default_scope = scope
    folder.mkdir(exist_ok=True)
    cfg.dump(str(folder / 'model.py'))
    torch.manual_seed(1)
    built = build_model(Config.fromfile(str(folder / 'model.py')))
    randomise_norms(built)
    torch.save(dict(
        state_dict=built.state_dict(), optimizer=dict(state={}),
        meta=dict(epoch=3, dataset_meta=dict(classes=('a', 'b')))),
        folder / 'model.pth')
    return built.eval()


def run(folder, **options):
    return deploy_files(str(folder / 'model.py'), str(folder / 'model.pth'),
                        folder / 'out.pth', **options)


def reloaded(folder):
    model = build_model(Config.fromfile(str(folder / 'out.py')))
    load_weights(model, str(folder / 'out.pth'))
    return model


@pytest.mark.parametrize('name', NETS)
def test_every_backbone(name, tmp_path):
    kind = {**NETS[name], 'layer_scale_init_value': .5}
    kind['type'] = f'shiftwise_mm.{kind["type"]}'
    net = write(tmp_path, kind)
    done = run(tmp_path)
    assert len(done.parity) == 2
    again, x = reloaded(tmp_path), torch.randn(1, 3, 99, 75)
    assert again.deploy and not any(
        isinstance(m, nn.BatchNorm2d) for m in again.modules())
    for a, b in zip(again(x), net(x), strict=True):
        assert_near(a, b)


def test_a_detector(tmp_path, monkeypatch):
    """Two lines, from any folder; all of the model; for inferencers."""
    write(tmp_path, DETECTOR, 'mmdet')
    tool = ROOT / 'tools/deploy.py'
    done = run_fresh(tool, 'model.py', 'model.pth', 'out.pth', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = re.findall(r'backbone output \d.+error (\S+) of', done.stdout)
    assert len(found) == 4 and all(float(e) < 1e-4 for e in found)
    lines = (tmp_path / 'out.py').read_text().splitlines()
    assert lines == [f"_base_ = '{tmp_path}/model.py'",
                     'model = dict(backbone=dict(deploy=True))']
    monkeypatch.chdir('/')
    cfg = Config.fromfile(str(tmp_path / 'out.py'))
    assert cfg.model.data_preprocessor == DETECTOR['data_preprocessor']
    content = torch.load(tmp_path / 'out.pth', weights_only=True)
    assert set(content) == {'meta', 'state_dict', 'args'}
    assert content['meta']['dataset_meta'] == dict(classes=('a', 'b'))
    from mmengine.infer import BaseInferencer
    assert 'deploy=True' in content['meta']['cfg'] and BaseInferencer
    assert any(key.startswith('bbox_head') for key in content['state_dict'])
    done = run_forked(tool, 'model.py', 'model.pth', 'out.pth', cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == ('deploy: out.pth exists; --force overwrites it\n')
    run(tmp_path, force=True, standalone=True)
    (tmp_path / 'model.py').unlink()
    reloaded(tmp_path)


def test_a_sparse_training_with_an_average(tmp_path):
    """The file holds the average, as mmengine saves it."""
    ema = dict(type='EMAHook', momentum=.3, update_buffers=True)
    train(tmp_path, hooks=[ema], save=6)
    model = dict(type='SparseTask', backbone=BACKBONE)
    Config(dict(model=model)).dump(str(tmp_path / 'model.py'))
    (tmp_path / 'iter_6.pth').rename(tmp_path / 'model.pth')
    state = torch.load(tmp_path / 'model.pth', weights_only=True)
    assert any(key.endswith('.mask') for key in state['state_dict'])
    run(tmp_path)
    content = torch.load(tmp_path / 'out.pth', weights_only=True)
    assert 'ema_state_dict' not in content
    original = build_model(Config.fromfile(str(tmp_path / 'model.py')))
    load_weights(original, str(tmp_path / 'model.pth'))
    again, x = reloaded(tmp_path), torch.randn(2, 3, 41, 50)
    for a, b in zip(again.backbone(x), original.backbone(x), strict=True):
        assert_near(a, b)
    weight = again.backbone.stages[0][0].large_kernel.strip_h.weight
    assert (weight == 0).float().mean() > .1


def test_nested_and_in_lists(tmp_path):
    net = dict(type='shiftwise_mm.ShiftWiseNet', **LONG)
    layer = dict(type='shiftwise_mm.ShiftWiseConv2d', in_channels=4,
                 kernel_size=7)
    write(tmp_path, dict(type='DeployWrapper', net=dict(encoder=net),
                         more=[layer]))
    done = run(tmp_path)
    assert done.deployed == ('net.encoder', 'more.0')
    text = (tmp_path / 'out.py').read_text()
    assert 'net=dict(encoder=dict(deploy=True))' in text
    again = reloaded(tmp_path)
    assert again.more[0].deploy and again.net['encoder'].deploy


@pytest.mark.parametrize('name', [
    'detection/faster-rcnn_r50-shiftwise-plugins_fpn_1x_coco.py',
    'detection/rtmdet-tiny_cspnext-shiftwise_300e_coco.py',
    'segmentation/upernet_slak-tiny_160k_ade20k-512x512.py'])
def test_the_changes_of_shipped_configs(name):
    cfg = Config.fromfile(ROOT / 'configs' / name)
    before = cfg.pretty_text
    changes = deploy_changes(cfg)
    assert cfg.pretty_text == before
    cfg.merge_from_dict(dict(model=changes))
    assert 'deploy=True' in cfg.pretty_text and 'deploy=True' not in before


@pytest.mark.parametrize('change, words', [
    (dict(backbone=dict(norm_cfg=dict(type='GN', num_groups=1))),
     'backbone cannot be deployed.*GroupNorm'),
    (dict(backbone=dict(type='mmdet.ResNet', depth=18, _delete_=True)),
     'nothing to deploy'),
    (dict(backbone=dict(deploy=True)), 'deployed already'),
])
def test_what_cannot_be_deployed(change, words, tmp_path):
    cfg = Config(dict(model=copy.deepcopy(DETECTOR)))
    if change['backbone'].pop('_delete_', False):
        cfg.model.backbone = change['backbone']
        cfg.model.neck.in_channels = [64, 128, 256, 512]
    else:
        cfg.merge_from_dict(dict(model=change))
    write(tmp_path, cfg.model.to_dict(), 'mmdet')
    with pytest.raises(InputError, match=words):
        run(tmp_path)
    assert not list(tmp_path.glob('*out*'))


def test_wrong_checkpoints_and_outputs_write_nothing(tmp_path, monkeypatch):
    write(tmp_path, DETECTOR, 'mmdet')
    file = tmp_path / 'model.pth'
    whole = torch.load(file, weights_only=True)
    part = {k: v for k, v in whole['state_dict'].items() if 'head' not in k}
    torch.save(dict(state_dict=part), file)
    with pytest.raises(InputError, match='lacks 7|lacks 8|lacks .* bbox_head'):
        run(tmp_path)
    torch.save(whole, file)
    for name, words in (('out.onnx', 'must end in .pth'),
                        ('no/out.pth', 'is no folder')):
        with pytest.raises(InputError, match=words):
            deploy_files(str(tmp_path / 'model.py'), str(file),
                         tmp_path / name)
    monkeypatch.setattr(deploy, 'TOLERANCE', 1e-12)
    with pytest.raises(InputError, match='differ by more than rounding.*'
                       'backbone output 0.*max abs error'):
        run(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        'model.pth', 'model.py']


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    base = tmp_path_factory.mktemp('deployed')
    make_shapes_dataset(base / 'data/shapes', num_train=4, num_val=4,
                        image_size=(128, 96))
    return base


@pytest.mark.parametrize('name', [
    pytest.param('rtmdet', marks=pytest.mark.slow), 'upernet'])
def test_the_demo_has_the_same_predictions(name, shapes):
    """By tools/test.py on the demo's validation set, deployed and not."""
    config = str(ROOT / f'configs/demo/{name}_shiftwise-nano_demo_shapes.py')
    model = build_model(Config.fromfile(config))
    randomise_norms(model.backbone)
    torch.save(dict(state_dict=model.state_dict()), shapes / f'{name}.pth')
    deploy_files(config, str(shapes / f'{name}.pth'),
                 shapes / f'{name}_deploy.pth')
    results = []
    for cfg, file in ((config, name),
                      (shapes / f'{name}_deploy.py', f'{name}_deploy')):
        out = f'{file}.pkl' if name == 'rtmdet' else file
        done = run_forked(ROOT / 'tools/test.py', cfg, f'{file}.pth',
                          '--out', out, cwd=shapes, merge=True)
        assert done.returncode == 0, done.stdout[-2000:]
        results.append((out, re.findall(r'(?:mIoU|bbox_mAP): +(\S+)',
                                        done.stdout)))
    assert results[0][1] == results[1][1] != []
    if name == 'rtmdet':
        one, other = ([result['pred_instances'] for result in pickle.loads(
            (shapes / out).read_bytes())] for out, _ in results)
        for a, b in zip(one, other, strict=True):
            assert_near(a['scores'], b['scores'], 1e-3)
    else:
        for path in (shapes / 'upernet').iterdir():
            import cv2
            one, other = (cv2.imread(str(shapes / out / path.name), 0)
                          for out, _ in results)
            assert np.mean(one != other) < .001
