"""Published files as load_from of a detector, a segmentor, a classifier."""
import argparse

import pytest
import torch
import torch.nn as nn
from mmengine.config import Config
from mmengine.model import BaseTTAModel
from mmengine.registry import MODELS as REGISTRY
from mmengine.runner import load_state_dict
from published import make, outputs, published, published_file
from tasks import MODELS, runner_of, training

from shiftwise_mm.engine.hooks import ConvertPretrainedHook

every_model = pytest.mark.parametrize('name', MODELS)


class Augmented(BaseTTAModel):
    """What test-time augmentation puts around a model."""

    def merge_preds(self, data_samples_list):
        return data_samples_list


def assert_backbone(model, source):
    """The outputs before the output norms."""
    net = make('v2', seed=7)
    net.load_state_dict(model.backbone.state_dict())
    for ours, expected in zip(outputs(net), outputs(source), strict=True):
        assert torch.equal(ours, expected)


@every_model
@pytest.mark.parametrize('way', ['load_from', 'load_checkpoint'])
def test_published_files(name, way, tmp_path):
    source, file = make('v2'), tmp_path / 'published.pth'
    torch.save(published_file('v2', source, N_rep=4), file)
    if way == 'load_from':
        runner = runner_of(name, tmp_path, load_from=str(file))
        runner.load_or_resume()
    else:
        runner = runner_of(name, tmp_path)
        runner.load_checkpoint(str(file))
    log, = tmp_path.rglob('*.log')
    text = log.read_text()
    assert_backbone(runner.model, source)
    if name == 'classifier':
        state = published('v2', source)
        assert torch.equal(runner.model.head.fc.bias, state['head.bias'])
        assert torch.equal(runner.model.head.norm.weight,
                           state['norm.weight'])
    assert "weights of 'model'" in text
    assert 'recognised as ShiftWise v2, published names' in text
    assert ('published.pth: recognised' in text) == (way == 'load_from')
    assert text.count('recognised as') == 1
    assert ('of a classifier' in text) == (name != 'classifier')


@pytest.mark.parametrize('name', ['detector', 'segmentor'])
def test_init_cfg_inside_a_model(name, tmp_path):
    source, file = make('v2'), tmp_path / 'published.pth'
    torch.save(published_file('v2', source), file)
    cfg = Config(MODELS[name]).copy()
    cfg.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(file))
    runner_of(name, tmp_path, hooks=())  # imports the scope
    model = REGISTRY.build(cfg)
    model.init_weights()
    assert_backbone(model, source)


@every_model
@pytest.mark.parametrize('prefix', ['', 'module.', 'backbone.',
                                    'module.backbone.'])
@pytest.mark.parametrize('container', ['state_dict', 'model', None])
def test_prefixes_and_containers(name, prefix, container, tmp_path):
    source, file = make('v2'), tmp_path / 'published.pth'
    state = {prefix + key: value
             for key, value in published('v2', source).items()}
    torch.save({container: state} if container else state, file)
    runner = runner_of(name, tmp_path)
    runner.load_checkpoint(str(file))
    assert_backbone(runner.model, source)


def test_a_model_that_augments_its_inputs(tmp_path):
    source, file = make('v2', norm_out=True), tmp_path / 'published.pth'
    torch.save(published_file('v2', source), file)
    model = Augmented(runner_of('detector', tmp_path).model)
    runner = argparse.Namespace(model=model, _load_from=None,
                                logger=argparse.Namespace(info=lambda _: 0))
    checkpoint = torch.load(file)
    ConvertPretrainedHook().after_load_checkpoint(runner, checkpoint)
    load_state_dict(model, checkpoint['state_dict'])
    for ours, expected in zip(outputs(model.module.backbone), outputs(source),
                              strict=True):
        assert torch.equal(ours, expected)


def test_a_bare_native_backbone(tmp_path):
    source, file = make('v2'), tmp_path / 'native.pth'
    torch.save(dict(state_dict=source.state_dict()), file)
    runner = runner_of('detector', tmp_path)
    runner.load_checkpoint(str(file))
    assert_backbone(runner.model, source)


def test_native_names_in_a_container_of_others(tmp_path):
    """Nothing to convert, but mmengine would not find the weights."""
    runner, file = runner_of('detector', tmp_path), tmp_path / 'native.pth'
    state = {key: torch.full_like(value, 2) if value.is_floating_point()
             else value for key, value in runner.model.state_dict().items()}
    torch.save(dict(model=state, epoch=3), file)
    runner.load_checkpoint(str(file))
    for key, value in runner.model.state_dict().items():
        assert torch.equal(value, state[key]), key


def test_a_published_detector(tmp_path):
    """Its neck comes along, and output norms find their place."""
    source, file = make('v2', norm_out=True), tmp_path / 'published.pth'
    runner = runner_of('detector', tmp_path)
    state = {key: value for key, value in runner.model.state_dict().items()
             if not key.startswith('backbone.')}
    state = {key: torch.full_like(value, 2) for key, value in state.items()}
    state.update(
        (f'backbone.{key}', value) for key, value in published(
            'v2', source).items() if not key.startswith(('norm.', 'head.')))
    torch.save(dict(state_dict=state, meta=dict(epoch=36)), file)
    runner.load_checkpoint(str(file))
    for ours, expected in zip(outputs(runner.model.backbone),
                              outputs(source), strict=True):
        assert torch.equal(ours, expected)
    assert runner.model.neck.lateral_convs[0].conv.bias.eq(2).all()


@every_model
def test_without_the_hook_nothing_is_lost_in_silence(name, tmp_path):
    file = tmp_path / 'published.pth'
    torch.save(published_file('v2', make('v2')), file)
    runner = runner_of(name, tmp_path, hooks=())
    with pytest.raises(ValueError, match='ConvertPretrainedHook'):
        runner.load_checkpoint(str(file))


@pytest.mark.parametrize('args, words', [
    (dict(N_rep=2), 'num_reps=2 in the file, 4'),
    (dict(kernel_size=[49, 49, 47, 13, 3]), r'kernel_sizes\[0\]=49')])
def test_options_that_disagree(args, words, tmp_path):
    file = tmp_path / 'published.pth'
    torch.save(published_file('v2', make('v2'), **args), file)
    with pytest.raises(ValueError, match=words):
        runner_of('detector', tmp_path).load_checkpoint(str(file))


@pytest.mark.parametrize('content', [
    dict(epoch=3), dict(state_dict={'conv1.weight': torch.ones(1)}),
    dict(state_dict={'backbone.layer1.weight': torch.ones(1)})],
    ids=['nothing', 'another backbone', 'another detector'])
def test_files_of_others(content, tmp_path):
    file = tmp_path / 'other.pth'
    torch.save(content, file)
    with pytest.raises(ValueError, match='no weights|none of ours'):
        runner_of('detector', tmp_path).load_checkpoint(str(file))


def test_a_model_without_our_backbone_is_left_alone(tmp_path):
    class Model(nn.Linear):
        pass

    runner = argparse.Namespace(model=Model(1, 1))
    checkpoint = dict(model={'weight': torch.ones(1)})
    ConvertPretrainedHook().after_load_checkpoint(runner, checkpoint)
    assert list(checkpoint) == ['model']


EMA = dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=.5,
           update_buffers=True)


@pytest.mark.parametrize('name', ['detector', 'segmentor'])
@pytest.mark.parametrize('hooks', [
    [],
    # In the order that would read checkpoint['state_dict'] too early.
    [EMA, dict(type='shiftwise_mm.ConvertPretrainedHook')]],
    ids=['no hook', 'EMA and hook'])
def test_resume_and_load_from(name, hooks, tmp_path):
    """Stopped and continued is the same as never stopped."""
    whole = runner_of(name, tmp_path / 'whole', hooks, **training(name, 4))
    whole.train()
    begun = runner_of(name, tmp_path / 'parts', hooks, **training(name, 2))
    begun.train()
    saved = torch.load(tmp_path / 'parts/iter_2.pth')
    assert {'optimizer', 'param_schedulers', 'message_hub'} <= set(saved)
    assert ('ema_state_dict' in saved) == (EMA in hooks)
    for filename in (None, str(tmp_path / 'parts/iter_2.pth')):
        resumed = runner_of(name, tmp_path / 'parts', hooks, resume=True,
                            load_from=filename, **training(name, 4))
        resumed.train()
        assert resumed.iter == 4
        expected = torch.load(tmp_path / 'whole/iter_4.pth')
        actual = torch.load(tmp_path / 'parts/iter_4.pth')
        for key in ('state_dict', *(['ema_state_dict'] * (EMA in hooks))):
            assert set(actual[key]) == set(expected[key])
            for entry, value in expected[key].items():
                assert torch.allclose(actual[key][entry], value,
                                      atol=1e-6), entry
        (tmp_path / 'parts/iter_4.pth').unlink()
        (tmp_path / 'parts/last_checkpoint').write_text(
            str(tmp_path / 'parts/iter_2.pth'))
    fresh = runner_of(name, tmp_path / 'fresh')
    content = fresh.load_checkpoint(str(tmp_path / 'parts/iter_2.pth'))
    for entry, value in fresh.model.state_dict().items():
        assert torch.equal(value, saved['state_dict'][entry]), entry
    assert set(content) == set(saved)


def test_published_weights_with_ema(tmp_path):
    source, file = make('v2'), tmp_path / 'published.pth'
    torch.save(published_file('v2', source), file)
    runner = runner_of(
        'detector', tmp_path,
        [EMA, dict(type='shiftwise_mm.ConvertPretrainedHook')],
        load_from=str(file), **training('detector', 1))
    runner.train()
    ema, = (hook for hook in runner.hooks if hasattr(hook, 'ema_model'))
    name = 'stages.2.0.pwconv1.1.weight'
    start = published('v2', source)[name]
    averaged = ema.ema_model.module.backbone.state_dict()[name]
    assert (averaged - start).abs().max() < .01
