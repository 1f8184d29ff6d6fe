"""Every way in, for every published file; and nothing runs."""
import os
import pickle

import pytest
import torch
import torch.nn as nn
from golden import FILES, backbone_cfg, classifier_of, read_golden
from helpers import assert_near, shared_path
from hostile import HOSTILE, SECRET
from mmengine.runner import load_checkpoint
from published import (
    FAMILIES,
    classifier,
    make,
    outputs,
    published,
    published_file,
)

from shiftwise_mm.checkpoint import load_pretrained
from shiftwise_mm.checkpoint.loading import find_backbones

every_family = pytest.mark.parametrize('family', FAMILIES)


def by_init_cfg(build, file):
    net = build(init_cfg=dict(type='Pretrained', checkpoint=file))
    net.init_weights()
    return net


def by_load_checkpoint(build, file):
    net = build()
    load_checkpoint(net, file)
    return net


def by_load_pretrained(build, file):
    net = build()
    load_pretrained(net, file)
    return net


def by_state_dict(strict):

    def load(build, file):
        net = build()
        content = torch.load(file)
        net.load_state_dict(content.get('model', content.get('state_dict')),
                            strict=strict)
        return net

    return load


WAYS = {
    'init_cfg': by_init_cfg,
    'load_checkpoint': by_load_checkpoint,
    'load_pretrained': by_load_pretrained,
    'strict state dict': by_state_dict(True),
    'state dict': by_state_dict(False),
}
every_way = pytest.mark.parametrize('way', WAYS)


@every_way
@pytest.mark.parametrize('file', [
    *FILES, 'sw_v2_as_published.pth', 'slak_as_published.pth'])
def test_golden_files_by_every_way(file, way):
    golden = read_golden(file.replace('_as_published', ''))

    def build(**options):
        cfg = backbone_cfg(file, golden['config'], **options)
        return cfg.pop('type')(**cfg).eval()

    net = WAYS[way](build, str(shared_path('golden', file)))
    with torch.no_grad():
        outs = net.eval()(golden['input'])
    for ours, expected in zip(outs, golden['stages'], strict=True):
        assert_near(ours, expected, 1e-5)


@every_way
@every_family
def test_published_files_by_every_way(family, way, tmp_path):
    source, file = make(family), tmp_path / 'published.pth'
    torch.save(published_file(family, source), file)
    net = WAYS[way](lambda **o: make(family, seed=1, **o), str(file))
    for ours, expected in zip(outputs(net), outputs(source), strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize('file', [*FILES, 'sw_v2_as_published.pth',
                                  'slak_as_published.pth'])
def test_logits_of_a_classifier(file):
    golden = read_golden(file.replace('_as_published', ''))
    net = classifier_of(file, golden['config'])
    report = load_pretrained(net, shared_path('golden', file))
    assert not report.ignored
    with torch.no_grad():
        assert_near(net(golden['input']), golden['logits'], 1e-5)


def test_a_native_classifier(tmp_path):
    source, file = classifier(), tmp_path / 'classifier.pth'
    torch.save(dict(state_dict=source.state_dict()), file)
    net = classifier(seed=1)
    assert not load_pretrained(net, file).changed
    for name, value in source.state_dict().items():
        assert torch.equal(net.state_dict()[name], value), name
    # Its backbone alone.
    backbone = make('v2', seed=1)
    report = load_pretrained(backbone, file)
    assert set(report.ignored) == {'head.norm.weight', 'head.norm.bias',
                                   'head.fc.weight', 'head.fc.bias'}
    assert torch.equal(outputs(backbone)[-1], outputs(source.backbone)[0])


def test_other_classes(tmp_path):
    file, net = tmp_path / 'published.pth', classifier(3, seed=1)
    source = make('v2')
    torch.save(published_file('v2', source), file)
    before = net.head.fc.weight.clone()
    report = load_pretrained(net, file)
    assert report.ignored == dict.fromkeys(
        ('head.weight', 'head.bias'), 'of 7 classes, the model has 3')
    assert torch.equal(net.head.fc.weight, before)
    assert torch.equal(net.head.norm.weight,
                       published('v2', source)['norm.weight'])


class Detector(nn.Module):
    """As much of one as loading sees."""

    def __init__(self, **options):
        super().__init__()
        self.backbone = make('v2', **options)
        self.neck = nn.Linear(2, 2)


@pytest.mark.parametrize('prefix', ['', 'module.', 'backbone.'])
def test_into_a_larger_model(prefix, tmp_path):
    source, file = make('v2'), tmp_path / 'published.pth'
    torch.save({prefix + name: value for name, value in
                published('v2', source).items()}, file)
    model = Detector(seed=1)
    before = model.neck.weight.clone()
    report = load_pretrained(model, file)
    assert report.recognised.startswith('ShiftWise v2')
    assert (report.source, report.container) == ('published.pth', '')
    assert len(report.ignored) == 4
    for ours, expected in zip(outputs(model.backbone), outputs(source),
                              strict=True):
        assert torch.equal(ours, expected)
    assert torch.equal(model.neck.weight, before)


def test_of_a_larger_model(tmp_path):
    source, file = Detector(), tmp_path / 'detector.pth'
    state = source.state_dict()
    torch.save(dict(state_dict={**state, 'roi.fc': torch.ones(2)}), file)
    model = Detector(seed=1)
    report = load_pretrained(model, file)
    for name, value in state.items():
        assert torch.equal(model.state_dict()[name], value), name
    assert report.ignored == {'roi.fc': 'the model has no place for it'}
    backbone = make('v2', seed=1)
    report = load_pretrained(backbone, file)
    assert set(report.ignored.values()) == {'beside the backbone'}


class Deep(nn.Module):
    """A backbone inside of others, and weights beside it on every level."""

    def __init__(self, **options):
        super().__init__()
        self.teacher = nn.ModuleDict(dict(
            stages=nn.ModuleList([nn.Linear(2, 2)]), net=Detector(**options)))
        self.head = nn.Linear(2, 2)


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_of_a_model_with_a_deep_backbone(prefix, tmp_path):
    source, file = Deep(), tmp_path / 'deep.pth'
    state = source.state_dict()
    torch.save({prefix + name: v for name, v in state.items()}, file)
    model = Deep(seed=1)
    report = load_pretrained(model, file)
    for name, value in state.items():
        assert torch.equal(model.state_dict()[name], value), name
    assert not report.ignored and not report.converted
    assert report.recognised == 'ShiftWiseNet, native names'


def test_into_a_model_with_a_deep_backbone(tmp_path):
    source, file, model = make('v2'), tmp_path / 'p.pth', Deep(seed=1)
    torch.save(published_file('v2', source), file)
    before = model.head.weight.clone()
    report = load_pretrained(model, file)
    assert len(report.ignored) == 4 and report.converted
    for ours, expected in zip(outputs(model.teacher.net.backbone),
                              outputs(source), strict=True):
        assert torch.equal(ours, expected)
    assert torch.equal(model.head.weight, before)


def test_wrapped_models(tmp_path):
    source, file = make('v2'), tmp_path / 'published.pth'
    torch.save(published_file('v2', source), file)
    model = nn.DataParallel(Detector(seed=1))
    (prefix, backbone), = find_backbones(model)
    assert prefix == 'backbone.' and backbone is model.module.backbone
    load_pretrained(model, file)
    for ours, expected in zip(outputs(backbone), outputs(source),
                              strict=True):
        assert torch.equal(ours, expected)


def test_the_container_can_be_chosen(tmp_path):
    source, averaged = make('v2'), make('v2', seed=5)
    file = tmp_path / 'published.pth'
    torch.save({**published_file('v2', source),
                'model_ema': published('v2', averaged)}, file)
    for container, expected in ((None, source), ('model', source),
                                ('model_ema', averaged)):
        net = make('v2', seed=1)
        report = load_pretrained(net, file, container=container)
        assert report.container == container or 'model'
        for a, b in zip(outputs(net), outputs(expected), strict=True):
            assert torch.equal(a, b)
    with pytest.raises(ValueError, match="container.*'ema'"):
        load_pretrained(source, file, container='ema')


def test_the_options_of_the_training_are_compared(tmp_path):
    file = tmp_path / 'published.pth'
    torch.save(published_file('v2', make('v2'),
                              kernel_size=[49, 49, 47, 13, 3]), file)
    for model in (make('v2'), Detector()):
        with pytest.raises(ValueError, match=r'kernel_sizes\[0\]=49 in the '
                           'file, 51 in the model'):
            load_pretrained(model, file)


def test_errors(tmp_path):
    file = tmp_path / 'file.pth'
    with pytest.raises(FileNotFoundError, match='file.pth'):
        load_pretrained(make('v2'), file)
    file.write_bytes(b'no checkpoint')
    with pytest.raises(ValueError, match='file.pth'):
        load_pretrained(make('v2'), file)
    torch.save([torch.ones(1)], file)
    with pytest.raises(ValueError, match='file.pth holds a list'):
        load_pretrained(make('v2'), file)
    torch.save(dict(epoch=3), file)
    with pytest.raises(ValueError, match='no weights.*epoch'):
        load_pretrained(make('v2'), file)
    torch.save(published_file('v2', make('v2')), file)
    with pytest.raises(ValueError, match='Linear holds no backbone'):
        load_pretrained(nn.Linear(1, 1), file)
    with pytest.raises(ValueError, match="style='unirep', the model 'slak'"):
        load_pretrained(make('v1'), file)


@pytest.mark.parametrize('make_payload', HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_refused_by_every_way(make_payload, tmp_path,
                                                monkeypatch):
    file = tmp_path / 'hostile.pth'
    torch.save({**published_file('v2', make('v2')),
                'payload': make_payload()}, file)
    called = []
    monkeypatch.setattr(os, 'putenv', lambda *args: called.append(args))
    before = make('v2', seed=1).state_dict()
    for load in (by_init_cfg, by_load_checkpoint, by_load_pretrained):
        net = make('v2', seed=1)
        with pytest.raises((pickle.UnpicklingError, ValueError)) as caught:
            load(lambda net=net, **o: make('v2', seed=1, **o) if o else net,
                 str(file))
        assert all(torch.equal(value, before[name])
                   for name, value in net.state_dict().items())
    error = caught.value  # of load_pretrained
    assert isinstance(error.__cause__, pickle.UnpicklingError)
    text = str(error)
    assert text.startswith(f'{file} is refused: ') and '\n' not in text
    assert 'only tensors and plain data' in text or 'asks for' in text
    assert not called and SECRET not in os.environ


def test_a_url_goes_through_mmengine(tmp_path, monkeypatch):
    source, file = make('v2'), tmp_path / 'published.pth'
    torch.save(published_file('v2', source), file)
    monkeypatch.setattr(
        'mmengine.runner.checkpoint.load_url',
        lambda url, map_location, **_: torch.load(
            file, map_location=map_location))
    net = make('v2', seed=1)
    report = load_pretrained(net, 'https://example.com/a/weights.pth')
    assert report.source == 'weights.pth'
    for ours, expected in zip(outputs(net), outputs(source), strict=True):
        assert torch.equal(ours, expected)
