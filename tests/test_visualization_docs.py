"""Every command of docs/visualization.md runs."""
import json
import re
import shlex
import shutil

import pytest
import torch
from helpers import ROOT
from mmengine.config import Config
from PIL import Image
from processes import run_forked
from tasks import DETECTOR, SEGMENTOR

from shiftwise_mm.registry import MODELS

TEXT = (ROOT / 'docs/visualization.md').read_text()
COMMANDS = [line.partition('.venv/bin/python ')[2].strip()
            for block in re.findall(r'```bash\n(.+?)```', TEXT, re.S)
            for line in block.splitlines()]
DEMO = 'work_dirs/demo/shapes_shiftwise-nano_auto'
SEG = 'work_dirs/demo-seg/shapes_auto'


def make_model(folder, name, scope, model):
    """What a demo leaves, with a miniature model."""
    iters = Config.fromfile(ROOT / 'configs/demo' / name).max_iters
    pack = dict(mmdet='PackDetInputs', mmseg='PackSegInputs')[scope]
    options = {} if scope == 'mmseg' else dict(
        meta_keys=('ori_shape', 'img_shape', 'scale_factor'))
    cfg = Config(dict(
        # Strips: nothing to compile.
        model={**model, 'backbone': dict(model['backbone'],
                                         shift_form='strip')},
        default_scope=scope, test_dataloader=dict(dataset=dict(
            type='mmengine.BaseDataset',
            metainfo=dict(classes=('a', 'b', 'c')),
            pipeline=[dict(type='LoadImageFromFile'),
                      dict(type='Resize', scale=(64, 64)),
                      dict(type=pack, **options)]))))
    folder.mkdir(parents=True)
    cfg.dump(folder / name)
    from mmengine.registry import DefaultScope
    with DefaultScope.overwrite_default_scope(scope):
        torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()),
                   folder / f'iter_{iters}.pth')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp('docs')
    make_model(base / DEMO, 'rtmdet_shiftwise-nano_demo_shapes.py', 'mmdet',
               DETECTOR)
    make_model(base / SEG, 'upernet_shiftwise-nano_demo_shapes.py', 'mmseg',
               SEGMENTOR)
    (base / 'data/shapes/val').mkdir(parents=True)
    (base / 'docs').mkdir()
    Image.effect_noise((64, 64), 90).convert('RGB').save(
        base / 'data/shapes/val/0.jpg')
    (base / DEMO / '20260101_000000/vis_data').mkdir(parents=True)
    (base / DEMO / '20260101_000000/vis_data/scalars.json').write_text(
        '\n'.join(json.dumps(record) for record in (
            dict(lr=.1, loss=2., grad_norm=1., iter=1, step=1),
            {'coco/bbox_mAP': .1, 'coco/bbox_mAP_50': .2, 'step': 0})))
    shutil.copytree(base / DEMO, base / f'{DEMO}_sparse0.6')
    return base


@pytest.mark.parametrize('command', [
    # Three networks; the other command of the tool is quick.
    pytest.param(command, id=f'{i}-{command.split()[0]}', marks=[
        pytest.mark.slow] * ('unireplknet' in command))
    for i, command in enumerate(COMMANDS)])
def test_the_command_runs(command, folder):
    tool, *args = shlex.split(command)
    if 'plot_erf' in tool:
        args += ['--size', '64']  # a large one takes minutes
    done = run_forked(ROOT / tool, *args, cwd=folder)
    assert done.returncode == 0, done.stderr
    out = args[args.index('--out') + 1] if '--out' in args else args[0]
    assert (folder / out).exists()


def test_pictures_are_there_and_small():
    named = re.findall(r'!\[.+?\]\((\S+)\)', TEXT)
    assert {'operator.png', 'erf.png', 'curves.png'} <= set(named)
    for name in named:
        assert (ROOT / 'docs' / name).stat().st_size < 150_000, name


def test_tools_that_are_named_have_a_command():
    assert {command.split()[0] for command in COMMANDS} == {
        f'tools/{name}.py' for name in ('predict', 'plot_erf', 'plot_shifts',
                                        'plot_curves')}
