"""Broken environments: a fake package lies before the real one."""
import os
import sys

import pytest
from helpers import ROOT
from processes import run_fresh

from shiftwise_mm.diagnosis.check import ABSENT, BROKEN, OK
from shiftwise_mm.diagnosis.process import run_probes
from shiftwise_mm.stack import STOCK, find_stack

stock_only = pytest.mark.skipif(
    find_stack() is not STOCK, reason='what OpenMMLab\'s own releases need')
MISSING = 'raise ModuleNotFoundError("No module named {0}", name="{0}")\n'
# As where it is not installed.
HIDDEN = 'import sys\nsys.modules[{!r}] = None\n'


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Puts files before all packages, for processes; then runs probes."""

    def run(files, *probes):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        monkeypatch.setattr(sys, 'path', [str(tmp_path), *sys.path])
        return {check.name: check for check in run_probes(probes)}

    return run


@stock_only
def test_setuptools_without_pkg_resources(broken):
    found = broken({'pkg_resources.py': MISSING.format('pkg_resources')},
                   'mmengine')
    assert found['mmengine'].status == OK
    check = found['configs of packages']
    assert check.status == BROKEN and 'pkg_resources' in check.detail
    assert check.mend == "pip install 'setuptools<81'"


def test_mmcv_without_ops(broken):
    """As mmcv-lite is."""
    found = broken({'mmcv/__init__.py': "__version__ = '2.1.0'\n"}, 'mmcv')
    assert found['mmcv'].status == OK
    check = found['mmcv ops']
    assert check.status == BROKEN
    assert check.detail == 'mmcv is installed without its compiled ops'
    name = find_stack().distributions['mmcv']
    assert 'MMCV_WITH_OPS=1 pip install --no-build-isolation' in check.mend
    assert f'--no-binary {name} ' in check.mend


@stock_only
def test_a_release_of_mmcv_that_mmdet_refuses(broken):
    check = broken({'mmcv/__init__.py': "__version__ = '2.2.0'\n"},
                   'mmdet')['mmdet']
    assert check.status == BROKEN and 'MMCV==2.2.0' in check.detail
    assert check.mend.endswith("--no-binary mmcv 'mmcv<2.2,>=2.1'")


@stock_only
def test_what_mmseg_does_not_list(broken):
    check = broken({'ftfy.py': MISSING.format('ftfy')}, 'mmseg')['mmseg']
    assert check.status == BROKEN
    assert check.mend == 'pip install ftfy regex'


def test_a_process_that_is_ended_by_a_library(broken):
    """What comes behind it is looked at all the same."""
    found = broken({
        'onnx.py': 'import os\nos.abort()\n',
        'onnxruntime.py': "raise ImportError('libGL.so.1: cannot open shared "
                          "object file: No such file')\n"
    }, 'onnx', 'onnxruntime', 'numpy')
    assert [check.status for check in found.values()] == [BROKEN, BROKEN, OK]
    assert 'signal SIGABRT' in found['onnx'].detail
    assert found['onnx'].mend.startswith('pip install --force-reinstall ')
    assert found['onnxruntime'].mend == 'apt-get install libgl1'


def test_without_taichi(broken):
    """Not broken, but told, with what is left."""
    found = broken({'sitecustomize.py': HIDDEN.format('taichi')}, 'taichi',
                   'operators')
    assert found['taichi'].status == ABSENT
    assert found['taichi'].mend == "pip install 'taichi<1.8,>=1.7.4'"
    for name in 'form fused on cpu', 'backend taichi on cpu':
        assert found[name].status == ABSENT
        assert 'Taichi is not installed' in found[name].detail
    for name in ('form strip on cpu', 'form shift on cpu',
                 'backend reference on cpu'):
        assert found[name].status == OK
    assert not [c for c in found.values() if c.status == BROKEN]


def test_a_broken_taichi(broken):
    check = broken({'taichi/__init__.py': "raise ImportError('no x')\n"},
                   'taichi')['taichi']
    assert check.status == BROKEN and check.detail == 'ImportError: no x'
    assert check.mend == \
        "pip install --force-reinstall --no-deps 'taichi<1.8,>=1.7.4'"


def test_the_doctor_starts_where_nothing_can_be_imported(tmp_path):
    """By the module and by the command; others say it in a line."""
    (tmp_path / 'torch.py').write_text(MISSING.format('torch'))
    (tmp_path / 'mmengine.py').write_text(MISSING.format('mmengine'))
    env = {**os.environ, 'PYTHONPATH': str(tmp_path)}
    done = run_fresh('-m', 'shiftwise_mm.doctor', env=env, cwd=tmp_path)
    assert done.returncode == 1
    assert 'mend it: pip install ' in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.startswith('Broken: torch, mmengine, ')
    assert last.endswith(', operators. See "mend it" above.')
    done = run_fresh('-m', 'shiftwise_mm', 'list-models', env=env,
                     cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith('shiftwise: ')
    assert done.stderr.count('\n') == 1


def test_libraries_are_those_that_the_setup_knows():
    from shiftwise_mm.diagnosis.mends import LIBRARIES
    text = (ROOT / 'tools/env_setup/checks.py').read_text()
    for library, package in LIBRARIES.items():
        assert f'{library!r}: {package!r},' in text
