"""Configs inside packages, by the names that users give."""
from pathlib import Path

import mmdet
import pytest
from mmengine.config import Config

from shiftwise_mm import swap
from shiftwise_mm.analysis import flops
from shiftwise_mm.config_paths import config_path, configs_of
from shiftwise_mm.engine.inputs import InputError, read_config


@pytest.mark.parametrize('name', [
    'shiftwise_mm::demo/rtmdet_resnet18_demo_shapes.py',
    'mmdet::gn+ws/faster-rcnn_r50_fpn_gn-ws-all_1x_coco.py',
    'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py'])
def test_a_config_inside_a_package(name):
    package, _, rest = name.partition('::')
    path = config_path(name)
    assert path == str(configs_of(package) / rest)
    assert Config.fromfile(path).model.type


def test_folder_of_a_package():
    assert configs_of('mmdet') == \
        Path(mmdet.__file__).parent / '.mim/configs'


@pytest.mark.parametrize('path', ['a/b.py', '/x/y.py', 'not there.py'])
def test_other_paths_stay(path):
    assert config_path(path) == path


@pytest.mark.parametrize('name, line', [
    ('nothing_here::a/b.py', "no package 'nothing_here' is installed"),
    ('a.b::c.py', "no package 'a.b' is installed"),
    ('::c.py', "no package '' is installed"),
    ('pytest::c.py', 'the package pytest holds no configs'),
    ('mmdet::a/b.py', 'there is no config mmdet::a/b.py')])
def test_what_is_not_there(name, line):
    with pytest.raises(FileNotFoundError, match=line):
        config_path(name)


def test_the_tools_take_them(tmp_path, monkeypatch):
    """In any folder; a swap inherits from them by name."""
    monkeypatch.chdir(tmp_path)
    name = 'shiftwise_mm::demo/rtmdet_shiftwise-nano_demo_shapes.py'
    assert read_config(name, {'max_iters': 3}, ('model', )).max_iters == 3
    for read in flops.read_config, swap.read_config:
        assert read(name).model.type == 'RTMDet'
    assert swap.text.base_of(config_path(name)) == name


def test_the_tools_tell_it_in_a_line():
    with pytest.raises(InputError, match='there is no config mmdet::a/b.py'):
        read_config('mmdet::a/b.py', None, ())
