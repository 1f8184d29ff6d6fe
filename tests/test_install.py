"""The installed package, as mmdet, mmseg and pip see it."""
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from helpers import ROOT, run_python
from mmengine.hub import get_config
from shipped import built, read, text_of

import shiftwise_mm

NAMES = sorted(str(f.relative_to(ROOT / 'configs'))
               for f in ROOT.glob('configs/**/*.py'))


def test_the_tests_see_an_installed_package():
    """A normal install: an editable one breaks `shiftwise_mm::` bases."""
    package = Path(shiftwise_mm.__file__).parent
    assert Path(sys.prefix) in package.parents
    assert (package / '.mim' / 'model-index.yml').is_file()


@pytest.mark.parametrize('library, register', [
    ('mmdet', 'register_all_modules'), ('mmseg', 'register_all_modules')])
def test_types_resolve_in_a_fresh_process(library, register, tmp_path):
    """With nothing imported but the library itself."""
    out = run_python(f'''
        import sys
        from {library}.registry import MODELS
        from {library}.utils import {register}
        {register}()
        assert 'shiftwise_mm' not in sys.modules
        net = MODELS.build(dict(type='shiftwise_mm.ShiftWiseNet', arch='nano'))
        layer = MODELS.build(dict(type='shiftwise_mm.ShiftWiseConv2d',
                                  in_channels=4))
        print(type(net).__name__, type(layer).__name__)
    ''', tmp_path)
    # mmdet's fork says before that it has no data sets of its makers'.
    assert out[-1] == 'ShiftWiseNet ShiftWiseConv2d'


@pytest.mark.parametrize(
    'name', [name for name in NAMES if '_base_' not in name])
def test_every_config_is_installed_and_builds(name):
    cfg = get_config(f'shiftwise_mm::{name}')
    assert text_of(cfg) == text_of(read(name))
    assert built(name)


def test_bases_resolve_outside_the_repository(tmp_path):
    file = tmp_path / 'mine.py'
    file.write_text(f"_base_ = 'shiftwise_mm::{NAMES[0]}'\nmax_iters = 7\n")
    out = run_python(f'''
        import shiftwise_mm
        from mmengine.config import Config
        print(Config.fromfile({str(file)!r}).max_iters)
    ''', tmp_path)
    assert out == ['7']


def types_of(node):
    """All values of ``type`` in a config."""
    if isinstance(node, dict):
        if 'type' in node:
            yield node['type']
        for value in node.values():
            yield from types_of(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from types_of(value)


@pytest.mark.parametrize('name', NAMES)
def test_our_types_carry_the_prefix(name):
    from shiftwise_mm import registry
    ours = set()
    for kind in registry.__all__:
        one = getattr(registry, kind)
        one.import_from_location()
        ours |= set(one.module_dict)
    assert {'ShiftWiseNet', 'ImageFolder', 'TopKAccuracy'} <= ours
    cfg = read(name)
    assert 'shiftwise' not in str(cfg.get('custom_imports'))
    for kind in types_of(cfg.to_dict()):
        assert kind not in ours, f'{kind} needs the prefix shiftwise_mm.'


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """Built from a copy, so that nothing of the repository is touched."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    tracked = subprocess.run(
        ['git', 'ls-files', '-co', '--exclude-standard'], cwd=ROOT,
        capture_output=True, text=True, check=True).stdout.split('\n')
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    pip('wheel', '--no-build-isolation', '-w', folder, source)
    made, = folder.glob('*.whl')
    return made


def pip(*words):
    command, *rest = words
    subprocess.run(
        [sys.executable, '-m', 'pip', command, '-q', '--no-deps',
         *map(str, rest)],
        check=True, env={**os.environ, 'PIP_DISABLE_PIP_VERSION_CHECK': '1'})


def test_the_built_wheel_is_complete(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        *(f'shiftwise_mm/.mim/configs/{name}' for name in NAMES),
        'shiftwise_mm/.mim/model-index.yml',
        *(f'shiftwise_mm/{f.relative_to(ROOT)}'
          for f in ROOT.glob('kernels/*.*')),
        *(str(f.relative_to(ROOT)) for f in ROOT.glob('shiftwise_mm/**/*.py')),
    }
    assert expected <= held
    assert not [n for n in held if n.startswith(('kernels/', 'tests/'))]
    assert any(n.endswith('LICENSE') for n in held)


@pytest.fixture(scope='module')
def elsewhere(wheel, tmp_path_factory):
    """A virtual environment with the wheel; the rest is this one's."""
    folder = tmp_path_factory.mktemp('elsewhere') / 'venv'
    venv.create(folder, symlinks=True)
    site, = folder.glob('lib/python*/site-packages')
    # Behind its own packages on the path.
    (site / 'outer.pth').write_text(sysconfig.get_path('purelib'))
    pip('install', '--no-build-isolation', '--prefix', folder,
        '--ignore-installed', wheel)
    return folder


def test_the_wheel_works_elsewhere(elsewhere, tmp_path):
    """Backbone, types in configs, and bases, away from the repository."""
    (tmp_path / 'mine.py').write_text(
        "_base_ = 'shiftwise_mm::demo/rtmdet_shiftwise-nano_demo_shapes.py'\n"
        'max_iters = 7\n')
    done = subprocess.run(
        [elsewhere / 'bin' / 'python', '-c', '''
import torch, shiftwise_mm
from mmengine.config import Config
from mmdet.registry import MODELS
cfg = Config.fromfile('mine.py')
net = MODELS.build(cfg.model.backbone)
print(shiftwise_mm.__file__)
print(cfg.max_iters, type(net).__name__)
print(tuple(net(torch.rand(1, 3, 64, 64))[0].shape[1:]))
'''], cwd=tmp_path, capture_output=True, text=True)
    assert not done.returncode, done.stderr
    file, *rest = done.stdout.strip().splitlines()
    assert Path(file).is_relative_to(elsewhere)
    assert rest[0] == '7 ShiftWiseNet'


def test_console_commands_of_the_wheel_run(elsewhere, tmp_path):
    declared = metadata.entry_points(group='console_scripts').select(
        module='shiftwise_mm.cli')
    for entry in declared:
        done = subprocess.run(
            [elsewhere / 'bin' / entry.name, '--help'], cwd=tmp_path,
            capture_output=True, text=True)
        assert not done.returncode, done.stderr
        assert 'train' in done.stdout
