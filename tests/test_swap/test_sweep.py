"""Many configs, each in a process of its own, and the command line."""
import json
import os
import runpy
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers import ROOT

from shiftwise_mm.swap import SwapError, plan_swap, read_config
from shiftwise_mm.swap.original import MEASURED, Level
from shiftwise_mm.swap.sweep import (
    list_configs,
    read_rows,
    sweep,
    try_swap,
)

TOOL = ROOT / 'tools/check_swaps.py'

# As small as detectors get.
NET = """
default_scope = 'mmdet'
model = dict(
    type='RetinaNet', data_preprocessor=dict(
        type='DetDataPreprocessor', pad_size_divisor=32, mean=[{mean}] * 3,
        std=[1] * 3),
    backbone=dict(type='ResNet', depth=18),
    neck=dict(type='FPN', in_channels=[64, 128, 256, 512], start_level=1,
              out_channels=8, num_outs=5),
    bbox_head=dict(
        type='RetinaHead', num_classes={classes}, in_channels=8,
        feat_channels=8, stacked_convs=1, anchor_generator=dict(
            type='AnchorGenerator', octave_base_scale=4,
            scales_per_octave=3, ratios=[.5, 1, 2],
            strides=[8, 16, 32, 64, 128])),
    train_cfg=dict(assigner=dict(
        type='MaxIoUAssigner', pos_iou_thr=.5, neg_iou_thr=.4),
        allowed_border=-1, pos_weight=-1),
    test_cfg=dict(nms_pre=100, score_thr=.1, min_bbox_size=0,
                  nms=dict(type='nms', iou_threshold=.5), max_per_img=100))
{more}
"""
OTHERS = {
    'refused.py': 'lr = 1\n',
    'unreadable.py': 'lr = 1 / 0\n',
    'dies.py': '__import__("os")._exit(3)\n',
    'sleeps.py': 'import time\ntime.sleep(60)\n',
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in OTHERS.items():
        (tmp_path / name).write_text(text)
    for name, options in {
            'net.py': {}, 'again.py': dict(
                more='epochs = 3', mean=99, classes=3),
            'three.py': dict(
                more='model["bbox_head"]["stacked_convs"] = 2')}.items():
        options = {'more': '', 'mean': 0, 'classes': 2, **options}
        (tmp_path / name).write_text(NET.format(**options))
    return tmp_path


def outcomes(rows):
    return {row['config']: row['outcome'] for row in rows}


def test_each_outcome(folder):
    rows = sweep(['net.py', 'refused.py', 'unreadable.py', 'dies.py'],
                 'shiftwise-nano', 'work')
    assert outcomes(rows) == {
        'net.py': 'checked', 'refused.py': 'refused',
        'unreadable.py': 'original', 'dies.py': 'failed'}
    reasons = [row['reason'] for row in rows]
    assert reasons[0] == ''
    assert reasons[1] == 'the config has no model'
    assert 'division by zero' in reasons[2]
    assert reasons[3] == 'the process ended with 3'
    assert read_rows('work/shiftwise-nano.jsonl') == rows


def test_a_limit_of_time(folder):
    row, = sweep(['sleeps.py'], 'shiftwise-nano', 'work', seconds=1)
    assert row['outcome'] == 'failed'
    assert row['reason'] == 'stopped after 1 seconds'
    assert 1 <= row['seconds'] < 30


def test_the_same_model_is_checked_once(folder):
    """Whatever its schedule, colours and classes are; a layer counts."""
    MEASURED.clear()
    net, again, three = sweep(['net.py', 'again.py', 'three.py'],
                              'shiftwise-nano', 'work')
    assert outcomes([net, again, three]) == dict.fromkeys(
        ['net.py', 'again.py', 'three.py'], 'checked')
    assert again['model'] == net['model'] != three['model']
    assert (net['like'], again['like'], three['like']) == ('', 'net.py', '')
    # What a process measured is known to the next ones.
    assert list(MEASURED.values()) == [(
        Level(64, 4), Level(128, 8), Level(256, 16), Level(512, 32))]


def test_two_at_a_time(folder):
    rows = sweep(['net.py', 'refused.py', 'three.py'], 'shiftwise-nano',
                 'work', jobs=2)
    assert list(outcomes(rows)) == ['net.py', 'refused.py', 'three.py']
    assert set(outcomes(rows).values()) == {'checked', 'refused'}


def test_after_computing_with_several_threads(folder):
    """A fork of this process would wait for its threads forever."""
    torch.conv2d(torch.ones(2, 8, 64, 64), torch.ones(8, 8, 3, 3)).sum()
    row, = sweep(['net.py'], 'shiftwise-nano', 'work', seconds=120)
    assert row['outcome'] == 'checked', row['reason']


def test_half_a_line_is_dropped(folder):
    path = folder / 'work/shiftwise-nano.jsonl'
    first, = sweep(['refused.py'], 'shiftwise-nano', 'work')
    with path.open('a') as file:
        file.write('{"config": "net.py", "outco')
    rows = sweep(['refused.py', 'net.py'], 'shiftwise-nano', 'work')
    assert rows[0] == first
    assert rows[1]['outcome'] == 'checked'
    assert read_rows(path) == rows


def test_a_wrong_name_starts_nothing(folder):
    with pytest.raises(SwapError, match='backbone must be one of'):
        sweep(['net.py'], 'resnet50', 'work')
    assert not (folder / 'work').exists()


def test_a_failure_is_told_from_one_of_the_original(folder, monkeypatch):
    from shiftwise_mm.swap import sweep as module
    wrong = NET.format(more='', mean=0, classes=2).replace(
        'type=\'RetinaHead\'', 'type=\'NoSuchHead\'')
    (folder / 'wrong.py').write_text(wrong)
    row = try_swap('wrong.py', 'shiftwise-nano', {})
    assert row['outcome'] == 'original' and 'NoSuchHead' in row['reason']
    # Both fail in the same step.
    (folder / 'step.py').write_text(NET.format(
        more='model["bbox_head"]["loss_cls"] = dict(type="CIoULoss")',
        mean=0, classes=2))
    row = try_swap('step.py', 'shiftwise-nano', {}, sizes=(64, ))
    assert row['outcome'] == 'built'
    assert 'the original fails in the same check' in row['reason']
    # The swap does it wrong.
    plan = module.plan_swap

    def wrong_plan(cfg, name):
        swap = plan(cfg, name)
        swap.changes['model']['neck']['in_channels'] = [48, 96, 99]
        return swap

    monkeypatch.setattr(module, 'plan_swap', wrong_plan)
    row = try_swap('net.py', 'shiftwise-nano', {}, sizes=(64, ))
    assert row['outcome'] == 'failed' and '99' in row['reason']


def test_configs_of_the_packages():
    configs = list_configs('mmdet')
    assert 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py' in configs
    assert not any('_base_' in config for config in configs)
    assert len(configs) == len(set(configs))


@pytest.mark.slow
def test_the_tool_goes_on_where_it_was_killed(folder):
    command = [sys.executable, '-P', str(TOOL), 'net.py', 'sleeps.py',
               'refused.py', '--backbone', 'shiftwise-nano', '--work-dir',
               'work']
    path = folder / 'work/shiftwise-nano.jsonl'
    with subprocess.Popen(command, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL,
                          start_new_session=True) as process:
        for _ in range(1200):
            if len(read_rows(path)) == 1:
                break
            time.sleep(.1)
        os.killpg(process.pid, signal.SIGKILL)
    first, = read_rows(path)
    assert first['outcome'] == 'checked'
    done = subprocess.run(
        [*command, '--seconds', '2', '--report', 'table.md'],
        capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = read_rows(path)
    assert rows[0] == first  # with its seconds: it was not run again
    assert outcomes(rows) == {'net.py': 'checked', 'sleeps.py': 'failed',
                              'refused.py': 'refused'}
    table = (folder / 'table.md').read_text()
    assert '| net.py | checked |' in table
    assert 'stopped after 2 seconds' in table
    assert sorted(os.listdir(folder / 'work')) == [
        'shiftwise-nano.jsonl', 'shiftwise-nano.log']


def test_the_tool_on_two_shipped_configs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    configs = ['mmdet::retinanet/retinanet_tta.py',
               'mmseg::unet/unet-s5-d16_fcn_4xb4-40k_drive-64x64.py']
    runpy.run_path(str(TOOL))['main'](
        [*configs, '--backbone', 'shiftwise-nano'])
    printed = capsys.readouterr().out
    assert '| refused with a reason | 1 | 1 | 2 |' in printed
    assert configs[0] in printed
    rows = tmp_path / 'work_dirs/swaps/shiftwise-nano.jsonl'
    assert [json.loads(line)['config']
            for line in rows.read_text().splitlines()] == configs


def test_the_tool_names_a_wrong_backbone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(TOOL))['main'](['x.py', '--backbone', 'resnet50'])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith(
        'check_swaps: backbone must be one of shiftwise-nano')


def test_the_small_net_is_what_the_tests_take_it_for(folder):
    swap = plan_swap(read_config('net.py'), 'shiftwise-nano')
    assert [level.stride for level in swap.levels] == [8, 16, 32]
