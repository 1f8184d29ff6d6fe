"""tools/swap_backbone.py as its user runs it."""
import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from helpers import ROOT
from mmengine.config import Config

from shiftwise_mm.registry import MODELS
from shiftwise_mm.swap import BACKBONES

TOOL = ROOT / 'tools/swap_backbone.py'
FCN = 'mmseg::pspnet/pspnet_r18-d8_4xb2-80k_cityscapes-512x1024.py'
CENTERNET = 'mmdet::centernet/centernet_r18_8xb16-crop512-140e_coco.py'
MINE = """
_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
model = dict(bbox_head=dict(num_classes=3))
"""


def run(*args, cwd):
    return subprocess.run(
        [sys.executable, '-P', str(TOOL), *map(str, args), '--backbone',
         'shiftwise-nano'],
        capture_output=True, text=True, cwd=cwd, timeout=300)


@pytest.fixture
def main(capsys):
    """The tool in this process: exit code, printed lines, error lines."""
    spec = importlib.util.spec_from_file_location('swap_backbone', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def call(*args, backbone='shiftwise-nano'):
        with pytest.raises(SystemExit) as caught:
            module.main([*map(str, args), '--backbone', backbone])
        printed = capsys.readouterr()
        return (caught.value.code, printed.out.splitlines(),
                printed.err.splitlines())

    return call


def test_it_writes_and_checks(tmp_path):
    (tmp_path / 'mine.py').write_text(MINE)
    done = run('mine.py', FCN, '--out', 'new/configs', '--check',
               cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = (f'new/configs/{name}_shiftwise-nano.py' for name in (
        'mine', 'pspnet_r18-d8_4xb2-80k_cityscapes-512x1024'))
    lines = done.stdout.splitlines()
    assert lines[0] == (
        f'{first}: shiftwise-nano gives 48 channels at stride 8, 96 channels '
        'at stride 16, 192 channels at stride 32')
    assert lines[1].startswith(f'{first}: trained a step and predicted at')
    assert 'a gradient for all' in lines[1]
    assert lines[2] == (
        f'{second}: shiftwise-nano gives 96 channels at stride 8, '
        '192 channels at stride 8')
    assert len(lines) == 4
    cfg = Config.fromfile(tmp_path / first)
    assert cfg.model.bbox_head.num_classes == 3
    assert cfg.model.backbone.out_indices == (1, 2, 3)
    assert "_base_ = '../../mine.py'" in (tmp_path / first).read_text()


def test_refusals_are_a_sentence_each_and_the_others_are_written(
        main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, lines, errors = main('mmdet::ssd/ssd300_coco.py', CENTERNET,
                               'nowhere.py')
    assert code == 2
    assert len(lines) == 1
    assert len(errors) == 2
    assert errors[0] == (
        'swap_backbone: mmdet::ssd/ssd300_coco.py: encoder and decoder are '
        'tied: SSD takes two layers from inside VGG and makes the other '
        'levels by extra layers of its own')
    assert errors[1].startswith(
        'swap_backbone: nowhere.py: the config cannot be read')
    assert os.listdir(tmp_path) == [
        'centernet_r18_8xb16-crop512-140e_coco_shiftwise-nano.py']


@pytest.mark.parametrize(('options', 'message'), [
    (('--pretrained', 'none.pth'), 'there is no file none.pth'),
    (('--out', 'file'), 'file'),
], ids=['pretrained', 'out'])
def test_options_that_are_wrong(options, message, main, tmp_path,
                                monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'file').touch()
    code, lines, errors = main(CENTERNET, *options)
    assert code == 2 and not lines
    assert len(errors) == 1
    assert errors[0].startswith(f'swap_backbone: {CENTERNET}: ')
    assert message in errors[0]
    assert os.listdir(tmp_path) == ['file']


def test_a_wrong_name_prints_all(main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, errors = main(CENTERNET, backbone='shiftwise')
    assert code == 2
    assert len(errors) == 1
    assert all(f'{name}, ' in errors[0] for name in BACKBONES)
    assert errors[0].endswith("got 'shiftwise'")
    assert not os.listdir(tmp_path)


def test_weights_are_loaded_by_the_check(main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    backbone = MODELS.build(dict(type='shiftwise_mm.ShiftWiseNet',
                                 arch='nano'))
    torch.save(backbone.state_dict(), 'right.pth')
    code, _, errors = main(CENTERNET, '--pretrained', 'right.pth', '--check')
    assert code == 0, errors
    cfg, = tmp_path.glob('*.py')
    cfg = Config.fromfile(cfg)
    assert cfg.model.backbone.init_cfg == dict(
        type='Pretrained', checkpoint='right.pth')
    assert cfg.custom_hooks[-1] == dict(
        type='shiftwise_mm.ConvertPretrainedHook')
    # Weights of another network: written, but the check says so.
    torch.save({'conv1.weight': torch.zeros(64, 3, 7, 7)}, 'wrong.pth')
    code, lines, errors = main(CENTERNET, '--pretrained', 'wrong.pth',
                               '--check', '--out', 'other')
    assert code == 1
    assert len(lines) == len(errors) == 1
    assert 'the check failed: build: ' in errors[0]


def test_a_second_time_is_the_same_and_another_file_stays(main, tmp_path,
                                                          monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(CENTERNET)[0] == main(CENTERNET)[0] == 0
    path, = tmp_path.iterdir()
    path.write_text('mine = 1\n')
    code, _, errors = main(CENTERNET)
    assert code == 2
    assert 'exists and is a different config' in errors[0]
    assert path.read_text() == 'mine = 1\n'
