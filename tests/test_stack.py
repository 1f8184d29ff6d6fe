"""Which OpenMMLab is installed, and what is said where it is not."""
import os
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
from helpers import ROOT
from mmengine.config import Config
from mmengine.hub import get_config

from shiftwise_mm import stack

# As make has it, or by the folder that tools/setup_env.py makes for it.
NAME = os.environ.get('STACK') or (
    'onedl' if Path(sys.prefix).name == '.venv-onedl' else 'stock')
STACKS = {'stock': stack.STOCK, 'onedl': stack.ONEDL}


def pins(name):
    text = (ROOT / 'requirements' / f'{name}.txt').read_text()
    return dict(re.findall(r'^([\w-]+)==(\S+)', text, re.M))


@pytest.fixture
def installed(monkeypatch):
    """Distributions that seem to be installed."""
    versions = {}

    def version(name):
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, 'version', version)
    return versions


def test_the_stack_of_this_environment():
    found = stack.find_stack()
    assert found is STACKS[NAME]
    assert set(found.distributions.values()) == set(pins(NAME))
    versions = stack.installed_versions()
    assert set(versions) <= set(pins(NAME))
    assert 'mmengine' in str(list(versions))


@pytest.mark.parametrize('name', STACKS)
def test_packages_are_those_of_the_distributions(name):
    other, = set(STACKS) - {name}
    assert list(STACKS[name].distributions) == \
        list(STACKS[other].distributions)
    assert list(STACKS[name].extras) == list(STACKS[other].extras)
    installed = stack.installed_versions()
    for package, distribution in STACKS[name].distributions.items():
        if distribution in installed:
            files = metadata.files(distribution)
            assert any(file.parts[0] == package for file in files)


@pytest.mark.parametrize('name', STACKS)
def test_extras_bring_the_pinned_releases(name):
    """What setup.py allows holds what is tested."""
    from packaging.requirements import Requirement
    allowed = {}
    for text in metadata.requires('shiftwise_mm'):
        requirement = Requirement(text)
        extra = re.search(r'extra == [\'"](.+)[\'"]', text)
        allowed.setdefault(extra and extra[1], {})[requirement.name] = \
            requirement.specifier
    assert not {*pins('stock'), *pins('onedl')} & set(allowed[None])
    own = pins(name)
    for package, extra in STACKS[name].extras.items():
        distribution = STACKS[name].distributions.get(package)
        if distribution:
            assert own[distribution] in allowed[extra][distribution]
            other = {*pins('stock'), *pins('onedl')} - set(own)
            assert not other & set(allowed[extra])
    for distribution, version in pins('runtime').items():
        for extra in None, 'taichi':
            if distribution in allowed[extra]:
                assert version in allowed[extra][distribution]


def test_configs_of_all_packages_are_bases(tmp_path):
    for package, config in (
            ('mmdet', 'retinanet/retinanet_r18_fpn_1x_coco.py'),
            ('mmseg', 'fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py')):
        pytest.importorskip(package)
        file = tmp_path / f'{package}.py'
        file.write_text(f"_base_ = '{package}::{config}'")
        assert Config.fromfile(file).model.backbone
        assert get_config(f'{package}::{config}').model.backbone


def test_nothing_installed_counts_as_stock(installed):
    assert stack.find_stack() is stack.STOCK
    assert stack.installed_versions() == {}


def test_forks_are_told_by_their_distributions(installed):
    installed.update({'onedl-mmengine': '0.10.12', 'onedl-mmcv': '2.3.6'})
    assert stack.find_stack() is stack.ONEDL
    assert stack.extra_of('mmdet') == 'onedl-detection'
    assert stack.extra_of('taichi') == 'taichi'
    assert stack.extra_of('unknown') is None


def test_both_at_once_are_refused(installed):
    installed.update({'onedl-mmengine': '0.10.12', 'mmcv': '2.1.0'})
    with pytest.raises(RuntimeError, match='twice: mmcv and onedl-mmengine'):
        stack.find_stack()


@pytest.mark.parametrize(('versions', 'module', 'words'), [
    ({'mmengine': '0.10.7'}, 'mmseg.apis', "'shiftwise_mm[segmentation]'"),
    ({'onedl-mmengine': '0.10.12'}, 'mmdet',
     "'shiftwise_mm[onedl-detection]'"),
    ({'mmengine': '0.10.7'}, 'pycocotools.mask',
     "'shiftwise_mm[detection]'"),
    ({}, 'mmengine', "'shiftwise_mm[mmengine]', or with the maintained forks "
     "'shiftwise_mm[onedl]'"),
    ({}, 'no_such_package', 'no_such_package'),
])
def test_what_is_missing_is_said(installed, monkeypatch, versions, module,
                                 words):
    installed.update(versions)
    package = module.partition('.')[0]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError) as caught:
        stack.import_optional(module, 'SomeHook')
    assert str(caught.value) == (f'SomeHook needs {package}, which is not '
                                 f'installed: pip install {words}')
    assert caught.value.name == package


def test_what_fails_inside_a_package_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / 'half_package.py').write_text('import not_there_at_all')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="'not_there_at_all'"):
        stack.import_optional('half_package', 'it')
    assert stack.import_optional('os.path', 'it') is os.path
