"""The short config: it inherits, is short, and reads back equal."""
import pytest
from mmengine.config import Config

from shiftwise_mm.swap import (
    SwapError,
    plan_swap,
    read_config,
    short_config,
    write_short_config,
)

RETINANET = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
MINE = """
_base_ = 'base.py'
model = dict(backbone=dict(depth=18), neck=dict(
    in_channels=[64, 128, 256, 512]))
custom_hooks = [dict(type='NumClassCheckHook')]
"""
LAZY = """
from mmengine.config import read_base

with read_base():
    from .base import *
model.merge(dict(backbone=dict(depth=18)))
model['neck']['in_channels'] = [64, 128, 256, 512]
"""
BASE = """
default_scope = 'mmdet'
model = dict(
    type='RetinaNet', backbone=dict(type='ResNet', depth=50),
    neck=dict(type='FPN', in_channels=[256, 512, 1024, 2048],
              out_channels=256, start_level=1))
"""
LISTS = """
default_scope = 'mmseg'
model = dict(
    type='EncoderDecoder', backbone=dict(type='ResNetV1c', depth=18),
    decode_head=dict(type='PSPHead', in_channels=512, in_index=3),
    auxiliary_head=[
        dict(type='FCNHead', in_channels=64, in_index=0, num_classes=2),
        dict(type='FCNHead', in_channels=256, in_index=2),
        dict(type='FCNHead', in_channels=512, in_index=-1)])
"""


def write(folder, config, name='shiftwise-nano'):
    """The short config in ``folder``, and whether it reads back equal."""
    cfg = read_config(str(config))
    swap = plan_swap(cfg, name)
    path = write_short_config(cfg, swap, str(config), folder)
    assert read_config(str(path)).to_dict() == swap.apply(cfg).to_dict()
    return path


def test_it_is_short_and_inherits(tmp_path):
    path = write(tmp_path, RETINANET)
    assert path == tmp_path / 'retinanet_r18_fpn_1x_coco_shiftwise-nano.py'
    assert path.read_text() == """\
_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='shiftwise_mm.ShiftWiseNet',
        arch='nano',
        out_indices=(1, 2, 3)),
    neck=dict(in_channels=[48, 96, 192], start_level=0))
custom_hooks = [dict(type='shiftwise_mm.ConvertPretrainedHook')]
"""
    assert list(tmp_path.iterdir()) == [path]


def test_another_file_is_left_alone(tmp_path):
    path = write(tmp_path, RETINANET)
    assert write(tmp_path, RETINANET) == path  # the same once more
    path.write_text('mine = 1\n')
    with pytest.raises(SwapError, match='exists and is a different config'):
        write(tmp_path, RETINANET)
    assert path.read_text() == 'mine = 1\n'


def test_a_config_that_reads_back_wrong_is_not_left(tmp_path, monkeypatch):
    from shiftwise_mm.swap import text
    monkeypatch.setattr(text, 'short_config', lambda *args: 'model = 1\n')
    with pytest.raises(SwapError, match='reads differently'):
        write(tmp_path, RETINANET)
    assert not list(tmp_path.iterdir())


def test_a_users_file_is_named_from_where_the_new_one_is(tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/base.py').write_text(BASE)
    (tmp_path / 'mine/net.py').write_text(MINE)
    path = write(tmp_path / 'new/here', tmp_path / 'mine/net.py')
    assert "_base_ = '../../mine/net.py'" in path.read_text()
    cfg = Config.fromfile(str(path))
    assert cfg.model.neck.in_channels == [48, 96, 192]
    assert [hook['type'] for hook in cfg.custom_hooks] == [
        'NumClassCheckHook', 'shiftwise_mm.ConvertPretrainedHook']


def test_a_path_inside_a_package_becomes_its_name(tmp_path):
    import mmdet
    installed = f'{mmdet.__path__[0]}/.mim/configs/' + \
        RETINANET.removeprefix('mmdet::')
    assert f'_base_ = {RETINANET!r}' in write(tmp_path, installed).read_text()


def test_a_config_of_the_pure_python_style(tmp_path):
    (tmp_path / 'base.py').write_text(BASE)
    (tmp_path / 'net.py').write_text(LAZY)
    path = write(tmp_path, tmp_path / 'net.py')
    assert path.name == 'net_shiftwise_nano.py'  # a name to import
    assert 'from .net import *' in path.read_text()
    assert Config.fromfile(str(path)).model.neck.in_channels == [48, 96, 192]


def test_its_path_must_be_a_name(tmp_path):
    (tmp_path / 'base.py').write_text(BASE)
    (tmp_path / 'my-net.py').write_text(LAZY)
    with pytest.raises(SwapError, match='no Python name'):
        write(tmp_path, tmp_path / 'my-net.py')


def test_elements_of_lists_that_stay_are_not_copied(tmp_path):
    (tmp_path / 'net.py').write_text(LISTS)
    text = write(tmp_path, tmp_path / 'net.py').read_text()
    assert 'num_classes' not in text
    assert '_base_.model.auxiliary_head[0]' in text
    assert len(text.splitlines()) < 25


def test_the_text_for_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / 'net.py').write_text(LISTS)
    monkeypatch.chdir(tmp_path)
    cfg = read_config('net.py')
    text = short_config(cfg, plan_swap(cfg, 'slak-tiny'), 'net.py')
    assert text.startswith("_base_ = 'net.py'\n")
    assert max(map(len, text.splitlines())) < 80


@pytest.mark.parametrize(('config', 'sentence'), [
    ('mmdet::retinanet/none.py', 'cannot be read: FileNotFoundError'),
    ('nowhere.py', 'cannot be read: FileNotFoundError'),
    ('broken.py', 'cannot be read: ZeroDivisionError: division by zero'),
    ('asks.py', 'cannot be read: ImportError: Failed to import no_such'),
])
def test_what_cannot_be_read_says_why(config, sentence, tmp_path,
                                      monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'broken.py').write_text('lr = 1 / 0\n')
    (tmp_path / 'asks.py').write_text(
        "custom_imports = dict(imports='no_such_module')\n")
    with pytest.raises(SwapError, match=sentence):
        read_config(config)
