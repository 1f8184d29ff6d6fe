"""docs/install.md names what there is, in the releases that are tested."""
import re
import sys
from fnmatch import fnmatch
from importlib import import_module, metadata

import pytest
from helpers import ROOT

TEXT = (ROOT / 'docs/install.md').read_text()


def test_extras_are_those_of_the_package():
    declared = set(metadata.metadata('shiftwise_mm').get_all(
        'Provides-Extra'))
    used = {name for names in re.findall(r'(?:whl|shiftwise_mm)\[(.+?)\]',
                                         TEXT)
            for name in names.split(',')}
    listed = {name for row in re.findall(r'^\| (`.+?) \| ', TEXT, re.M)
              for name in re.findall(r'`([\w-]+)`', row)}
    assert used <= declared
    assert declared <= listed


def test_releases_are_the_pinned_ones():
    pins = {}
    for name in 'runtime', 'stock', 'onedl', 'build':
        text = (ROOT / 'requirements' / f'{name}.txt').read_text()
        pins.update(re.findall(r'^([\w-]+)==(\S+)', text, re.M))
    commands = '\n'.join(re.findall(r'```bash\n(.+?)```', TEXT, re.S))
    named = re.findall(r'([\w-]+)==([\w.]+)', commands)
    assert {'torch', 'mmcv', 'onedl-mmcv', 'onedl-mmengine'} <= dict(
        named).keys()
    for name, version in named:
        assert pins[name] == version


def test_pythons_are_those_declared():
    """The table holds what was run; setup.py allows no more."""
    rows = re.findall(r'^\| (3\.\d+)\.\d+ \| .+ \| (\d+) \| \d+ \| \d+ \|',
                      TEXT, re.M)
    classifiers = metadata.metadata('shiftwise_mm').get_all('Classifier')
    declared = {text.rpartition(' ')[2] for text in classifiers
                if re.search(r':: 3\.\d+$', text)}
    # All tests are run on 3.11.
    assert {'3.11', *(python for python, _ in rows)} == declared
    assert all(int(passed) > 100 for _, passed in rows)
    *others, last = sorted(declared)
    for page, word in [('README.md', 'or'), ('README_zh-CN.md', '或'),
                       ('docs/install.md', 'or'),
                       ('docs/zh_CN/install.md', '或')]:
        assert f'Python {", ".join(others)} {word} {last}' in \
            (ROOT / page).read_text('utf-8'), page


@pytest.mark.parametrize('name, version', [('mmcv', '2.1.0'),
                                           ('onedl-mmcv', '2.3.6')])
def test_the_wheel_of_mmcv_is_where_the_set_up_keeps_it(name, version,
                                                        monkeypatch):
    """By the pattern of the command, for this machine and the pins."""
    monkeypatch.syspath_prepend(ROOT / 'tools')
    mmcv = sys.modules.get('env_setup.mmcv') or import_module(
        'env_setup.mmcv')
    monkeypatch.setenv('HOME', '/home/me')
    (pattern, ) = re.findall(rf'^pip install (~/\S+/{name}-\S+)$', TEXT, re.M)
    for torch in '2.13.0', '2.13.0+cpu':
        key = mmcv.wheel_key(name, version, torch, {})
        wheel = f'{mmcv.wheel_cache({})}/{key}/' \
            f'{name.replace("-", "_")}-{version}-cp311-cp311-linux_x86_64.whl'
        assert fnmatch(wheel, pattern.replace('~', '/home/me'))


def test_make_targets_exist():
    makefile = (ROOT / 'Makefile').read_text()
    targets = set(re.findall(r'make ([a-z][\w-]*)', TEXT))
    assert 'test-pythons' in targets
    for target in targets:
        assert f'\n{target}:' in makefile, target
