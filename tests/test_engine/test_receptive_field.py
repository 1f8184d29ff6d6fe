"""tools/plot_erf.py as its user runs it."""
import json

import numpy as np
import pytest
import torch
from helpers import ROOT
from PIL import Image
from processes import run_fresh
from published import MINI

from shiftwise_mm import visualization
from shiftwise_mm.cli.plot_erf import main
from shiftwise_mm.engine.inputs import InputError
from shiftwise_mm.engine.receptive_field import (
    Backbone,
    measure_fields,
    read_backbone,
)
from shiftwise_mm.models import ShiftWiseNet

SOURCE = 'shiftwise_mm.ShiftWiseNet'
OPTIONS = dict(arch=MINI, kernel_sizes=(13, 13, 7, 5), norm_out=False,
               layer_scale_init_value=1., shift_form='strip')  # no compiling
WORD = ','.join([SOURCE, *(f'{k}={v!r}'.replace(' ', '')
                           for k, v in OPTIONS.items())])


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp('photos')
    rng = np.random.default_rng(0)
    for name, size in (('a.png', (60, 90)), ('b.jpg', (100, 70))):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(
            root / name)
    (root / 'c.png').write_text('none')
    return root


def test_the_tool_draws_and_tells(photos, tmp_path):
    """Two backbones side by side, one of them mmdet's."""
    done = run_fresh(
        ROOT / 'tools/plot_erf.py', f'{WORD},label=SW',
        'mmdet.ResNet,depth=18,base_channels=8,stem_channels=8,'
        'zero_init_residual=False', '--images',
        photos, '--size', 64, '--out', tmp_path / 'erf')
    assert done.returncode == 1, done.stderr  # c.png
    assert f'plot_erf: skipped {photos}/c.png: ' in done.stderr
    assert '4/4' in done.stderr
    assert sorted(f.name for f in (tmp_path / 'erf').iterdir()) == [
        'erf.json', 'erf.png']
    assert Image.open(tmp_path / 'erf/erf.png').size[0] > 600
    figures = json.loads((tmp_path / 'erf/erf.json').read_text())
    own, resnet = figures['backbones']
    assert (own['label'], own['images'], own['weights']) == (
        'SW', 2, 'random, seed 0')
    assert own['input_size'] == [64, 64] and own['map_size'] == [2, 2]
    assert resnet['label'].startswith('mmdet.ResNet, depth=18')
    for backbone in figures['backbones']:
        squares = backbone['squares']
        assert list(squares) == ['0.2', '0.3', '0.5', '0.99']
        ratios = [square['area_ratio'] for square in squares.values()]
        assert 0 < ratios[0] <= ratios[1] <= ratios[2] <= ratios[3] <= 1
        assert f'({squares["0.99"]["side"]})' in done.stdout


def test_weights_of_a_detector_and_the_stage(photos, tmp_path):
    """The same field by a checkpoint as by the network that it is of."""
    from shiftwise_mm.analysis.erf import effective_field
    torch.manual_seed(5)
    network = ShiftWiseNet(**OPTIONS)
    torch.save(dict(state_dict={
        f'backbone.{name}': value
        for name, value in network.state_dict().items()}),
        tmp_path / 'model.pth')
    backbone = Backbone(SOURCE, str(tmp_path / 'model.pth'), 'x', OPTIONS)
    (found, ), _ = measure_fields([backbone], [photos / 'a.png'], size=64,
                                  stage=1)
    pixels = Image.open(photos / 'a.png').resize(
        (64, 64), Image.Resampling.BICUBIC)
    x = torch.from_numpy(np.array(pixels)).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (
        (.485, .456, .406), (.229, .224, .225)))
    expected = effective_field(network, [((x - mean) / std)[None]], 1)
    np.testing.assert_allclose(found.field.scores, expected.scores,
                               rtol=1e-3, atol=1e-5)
    assert found.as_dict()['weights'] == str(tmp_path / 'model.pth')


def test_a_config_with_its_own_normalisation(photos, tmp_path):
    config = tmp_path / 'model.py'
    backbone = dict(type=SOURCE, **OPTIONS)
    config.write_text(
        'model = dict(data_preprocessor=dict(mean=[0, 0, 0], '
        f'std=[255, 255, 255], bgr_to_rgb=False), backbone={backbone!r})')
    (own, usual), _ = measure_fields(
        [read_backbone(str(config)), read_backbone(WORD)], [photos], size=64,
        num_images=1)
    assert own.backbone.label == 'model'
    assert own.field.scores.shape == usual.field.scores.shape
    assert not np.allclose(own.field.scores, usual.field.scores)
    (again, ), _ = measure_fields([read_backbone(WORD)], [photos], size=64,
                                  num_images=1)
    assert (again.field.scores == usual.field.scores).all()


def test_a_backbone_in_a_word():
    assert read_backbone(
        'a/b.py,checkpoint=x.pth,label=A b,dims=(1,2),mode=fast') == Backbone(
            'a/b.py', 'x.pth', 'A b', dict(dims=(1, 2), mode='fast'))
    assert read_backbone('shiftwise-tiny').label == 'shiftwise-tiny'
    assert read_backbone('mmdet::a/b.py').label == 'b'
    for text in ',x=1', 'a,b', 'a,x=1,x=2', 'a,1x=3':
        with pytest.raises(InputError, match='backbone'):
            read_backbone(text)


@pytest.mark.parametrize('number, words', [(1, '1 image of 32 x 32 pixels'),
                                           (2, '2 images of 32 x 32 pixels')])
def test_the_picture_tells_the_number_of_images(number, words, photos,
                                                tmp_path, monkeypatch):
    notes = []
    draw = visualization.plot_fields
    monkeypatch.setattr(
        visualization, 'plot_fields', lambda fields, squares, note:
        notes.append(note) or draw(fields, squares, note))
    with pytest.raises(SystemExit):
        main([WORD, '--images', str(photos), '--size', '32', '--num-images',
              str(number), '--out', str(tmp_path)])
    assert notes[0].startswith(words)


@pytest.mark.parametrize('args, words', [
    (['shiftwise-huge'], 'shiftwise-tiny, shiftwise-small'),
    (['shiftwise-nano,colour=3'], 'colour'),
    (['missing.py'], 'missing.py'),
    ([WORD + ',checkpoint=missing.pth'], 'missing.pth'),
    ([WORD + ',checkpoint={photos}/c.png'], 'c.png'),
    ([WORD, '--stage', '4'], 'stage must be in -4..3'),
    ([WORD, '--size', '16'], 'size must be at least 32'),
    ([WORD, '--num-images', '0'], 'num_images'),
    ([WORD, '--images', 'nothing'], 'nothing'),
    ([WORD, '--images', '{photos}/c.png'], 'none of the images'),
    ([WORD, WORD], 'labels must differ'),
    ([WORD, '--stage', 'last'], '--stage'),
])
def test_wrong_arguments_are_one_line(args, words, photos, tmp_path, capsys):
    args = [arg.replace('{photos}', str(photos)) for arg in args]
    if '--images' not in args:
        args += ['--images', str(photos / 'a.png')]
    if '--size' not in args:
        args += ['--size', '32']
    with pytest.raises(SystemExit) as caught:
        main([*args, '--out', str(tmp_path / 'out')])
    err = capsys.readouterr().err
    err = err[err.index('plot_erf: '):]  # behind the bar
    assert caught.value.code == 2
    assert err.count('\n') == 1 and words in err
    assert not (tmp_path / 'out').exists()
