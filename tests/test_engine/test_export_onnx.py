"""tools/export_onnx.py: graphs of standard operators, run in onnxruntime."""
import copy
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from helpers import ROOT, assert_near
from processes import run_forked, run_fresh
from tasks import CLASSIFIER, DETECTOR, DIMS, SEGMENTOR
from test_engine.test_deploy import NETS, write

from shiftwise_mm.engine import export_onnx as module
from shiftwise_mm.engine.export_onnx import export_onnx
from shiftwise_mm.engine.inputs import InputError
from shiftwise_mm.engine.onnx_parts import _AdaptivePool

UPERNET = {**SEGMENTOR, 'decode_head': dict(
    type='mmseg.UPerHead', in_channels=list(DIMS), in_index=[0, 1, 2, 3],
    pool_scales=(1, 2, 3, 6), channels=8, num_classes=3,
    norm_cfg=dict(type='BN'), align_corners=False)}
FASTER = {**DETECTOR, 'type': 'mmdet.FasterRCNN'}
FASTER.pop('bbox_head')
FASTER.update(
    rpn_head=dict(
        type='mmdet.RPNHead', in_channels=8, feat_channels=8,
        anchor_generator=dict(
            type='mmdet.AnchorGenerator', scales=[8], ratios=[1.],
            strides=[8, 16, 32, 64, 128]),
        bbox_coder=dict(type='mmdet.DeltaXYWHBBoxCoder')),
    roi_head=dict(
        type='mmdet.StandardRoIHead',
        bbox_roi_extractor=dict(
            type='mmdet.SingleRoIExtractor', out_channels=8,
            roi_layer=dict(type='RoIAlign', output_size=3, sampling_ratio=0),
            featmap_strides=[8, 16, 32, 64]),
        bbox_head=dict(
            type='mmdet.Shared2FCBBoxHead', in_channels=8,
            fc_out_channels=8, roi_feat_size=3, num_classes=3,
            bbox_coder=dict(type='mmdet.DeltaXYWHBBoxCoder'))),
    train_cfg=None, test_cfg=dict(rpn=dict(nms_pre=9), rcnn=dict()))
MODELS = dict(detector=(DETECTOR, 'mmdet'), two=(FASTER, 'mmdet'),
              segmentor=(UPERNET, 'mmseg'), classifier=(CLASSIFIER, None))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp('onnx')
    for name, (model, scope) in MODELS.items():
        write(base / name, model, scope)
    return base


def run(folder, name, **options):
    return export_onnx(str(folder / name / 'model.py'),
                       str(folder / name / 'model.pth'),
                       folder / name / 'out.onnx', force=True,
                       **{'shape': (64, 96), 'dynamic': True, **options})


def session(path):
    return onnxruntime.InferenceSession(
        str(path), providers=['CPUExecutionProvider'])


def domains(path):
    return {node.domain for node in onnx.load(str(path)).graph.node}


@pytest.mark.parametrize('name, first, outputs', [
    ('detector', 'cls_scores_0', 10), ('two', 'feature_0', 15),
    ('segmentor', 'logits', 1), ('classifier', 'logits', 1)])
def test_whole_models_of_any_batch_and_size(name, first, outputs, folder):
    done = run(folder, name)
    assert list(done.parity) == [(1, 3, 64, 96), (2, 3, 101, 118)]
    for parity in done.parity.values():
        assert len(parity) == outputs and parity[0].name == first
        assert all(p.error <= 1e-4 * p.largest for p in parity)
    assert domains(done.path) == {''}
    graph = session(done.path)
    image = np.random.default_rng(0).normal(size=(3, 3, 70, 77)).astype('f')
    out = graph.run(None, dict(image=image))
    assert all(len(o) == 3 for o in out)
    if name == 'segmentor':
        assert out[0].shape == (3, 3, 70, 77)
    if name == 'two':
        assert 'StandardRoIHead' in done.left_out
        assert 'not in it: ' in str(done)


@pytest.mark.parametrize('name', NETS)
def test_every_backbone(name, tmp_path):
    kind = {**NETS[name], 'layer_scale_init_value': .5}
    kind['type'] = f'shiftwise_mm.{kind["type"]}'
    write(tmp_path / 'net', kind)
    done = run(tmp_path, 'net', part='backbone')
    assert [p.name for p in done.parity[1, 3, 64, 96]] == [
        'stage0', 'stage1']


def test_the_tool(folder):
    """A fixed shape; what the user of the file must know is in it."""
    done = run_fresh(
        ROOT / 'tools/export_onnx.py', 'model.py', 'model.pth', 'tool.onnx',
        '--shape', 64, 64, '--part', 'backbone', cwd=folder / 'segmentor')
    assert done.returncode == 0, done.stderr
    assert 'stage3' in done.stdout and 'max abs error' in done.stdout
    path = folder / 'segmentor/tool.onnx'
    assert session(path).get_inputs()[0].shape == [1, 3, 64, 64]
    facts = {p.key: p.value for p in onnx.load(str(path)).metadata_props}
    assert facts['config'] == 'model.py' and facts['channels'] == 'as loaded'
    assert json.dumps(facts)
    done = run_forked(
        ROOT / 'tools/export_onnx.py', 'model.py', 'model.pth', 'tool.onnx',
        cwd=folder / 'segmentor')
    assert (done.returncode, done.stderr) == (
        2, 'export_onnx: tool.onnx exists; --force overwrites it\n')


def test_what_cannot_be_exported_is_named(folder, monkeypatch, tmp_path):
    import mmdet.models  # noqa: F401
    with pytest.raises(InputError, match='part must be one of.*head'):
        run(folder, 'detector', part='head')
    with pytest.raises(InputError, match='must end in .onnx'):
        export_onnx('a.py', 'a.pth', tmp_path / 'a.pt')

    class DINO(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = torch.nn.Conv2d(3, 4, 3)

    with pytest.raises(InputError, match=r'DINO \(a Module\) cannot be '
                       'exported whole.*--part backbone'):
        module.make_part(DINO(), 'model')
    monkeypatch.setattr(module, 'TOLERANCE', 0.)
    path = folder / 'classifier/out.onnx'
    path.unlink(missing_ok=True)
    with pytest.raises(InputError, match='ImageClassifier cannot.*differs'):
        run(folder, 'classifier', dynamic=False)
    assert not list(path.parent.glob('*.onnx'))


def test_a_foreign_operator_is_named(folder, tmp_path):
    model = copy.deepcopy(SEGMENTOR)
    model['decode_head'] = dict(
        type='mmseg.FCNHead', in_channels=DIMS[3], in_index=3, channels=8,
        num_convs=1, num_classes=3, norm_cfg=dict(type='BN'),
        conv_cfg=dict(type='DCNv2'), dropout_ratio=0.)
    write(tmp_path / 'net', model, 'mmseg')
    with pytest.raises(InputError, match='Deform.* (no standard|ONNX)|'
                       'ONNX has no .*[dD]eform'):
        run(tmp_path, 'net')


@pytest.mark.parametrize('size', [(1, 3), (2, 2), (6, 6)])
def test_the_pool_is_that_of_torch(size):
    x = torch.randn(2, 3, 13, 8, dtype=torch.float64)
    assert_near(_AdaptivePool(size)(x), F.adaptive_avg_pool2d(x, size))
