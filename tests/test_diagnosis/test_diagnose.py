"""Versions, the self-test, and the doctor in the environment of the tests."""
import json
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from processes import run_fresh

from shiftwise_mm.diagnosis import Diagnosis, environment, self_test
from shiftwise_mm.diagnosis.check import ABSENT, BROKEN, OK, UNTESTED, Check
from shiftwise_mm.diagnosis.mends import install, mend_of, requirements
from shiftwise_mm.ops import shiftwise_conv
from shiftwise_mm.stack import ONEDL, STOCK, find_stack


@pytest.fixture
def installed(monkeypatch):
    """Other versions than those that are there; None for absent."""
    real = metadata.version

    def pretend(**versions):
        versions = {k.replace('_', '-'): v for k, v in versions.items()}

        def version(name):
            value = versions.get(name, '')
            if value is None:
                raise metadata.PackageNotFoundError(name)
            return value or real(name)

        monkeypatch.setattr(metadata, 'version', version)

    return pretend


def test_versions_are_those_of_the_distributions():
    found = environment.versions()
    assert list(found)[:3] == ['python', 'shiftwise_mm', 'torch']
    assert found['torch'] == metadata.version('torch')
    for name in find_stack().distributions.values():
        assert found[name] == metadata.version(name)
    assert found['python'] == sys.version.split()[0]


def test_these_versions_are_allowed():
    assert environment.check_versions() == []
    assert {'torch', 'numpy', 'taichi'} <= set(requirements())


def test_other_versions_are_not(installed):
    installed(torch='2.5.1', taichi='1.8.0', numpy='2.0.0')
    found = {c.name: c for c in environment.check_versions()}
    assert set(found) == {'torch', 'taichi'}
    assert all(c.status == BROKEN for c in found.values())
    assert found['torch'].mend == "pip install 'torch>=2.6'"
    assert found['taichi'].detail == \
        '1.8.0 is installed, needed is taichi<1.8,>=1.7.4'


def test_the_other_stack_is_not_asked_for():
    other = STOCK if find_stack() is ONEDL else ONEDL
    assert not set(requirements()) & set(other.distributions.values())
    assert set(find_stack().distributions.values()) <= set(requirements())


def test_both_stacks_are_broken(installed):
    other = STOCK if find_stack() is ONEDL else ONEDL
    assert environment.check_stack().status == OK
    mmdet = find_stack().distributions['mmdet']
    installed(**{other.distributions['mmcv'].replace('-', '_'): '2.3'})
    check = environment.check_stack()
    assert check.status == BROKEN
    assert check.mend.startswith('pip uninstall -y ')
    assert {'mmcv', 'onedl-mmcv', mmdet} < set(check.mend.split())


def test_ops_of_mmcv_for_another_torch():
    error = ImportError('/x/mmcv/_ext.cpython-311.so: undefined symbol: _ZN')
    assert mend_of(error, 'mmdet') == install('mmcv')
    assert mend_of(ModuleNotFoundError("No module named 'mmcv._ext'",
                                       name='mmcv._ext'), 'mmseg') == \
        install('mmcv')


def test_compilers(monkeypatch, tmp_path):
    assert 'g++' in environment.compilers()['c++']
    monkeypatch.setenv('CXX', str(tmp_path / 'nothing'))
    assert environment.compilers()['c++'] is None


def wrong_gradient(x, weight, **options):
    """As a kernel that is right forward only."""
    outputs = shiftwise_conv(x, weight, **options)
    return tuple(out + .01 * (x - x.detach()) for out in outputs)


def nan(x, weight, **options):
    return tuple(out * torch.tensor(float('nan'))
                 for out in shiftwise_conv(x, weight, **options))


def raises(x, weight, **options):
    raise RuntimeError('no kernel\nfor this')


@pytest.mark.parametrize('function, text', [
    (wrong_gradient, 'gradients differ from the definition by 0.00'),
    (nan, 'differ from the definition by nan of'),
    (raises, 'RuntimeError: no kernel for this')])
def test_a_form_that_is_wrong_is_broken(monkeypatch, function, text):
    monkeypatch.setattr(self_test, 'shiftwise_conv', function)
    found = {c.name: c for c in self_test.self_test()}
    assert found['form strip on cpu'].status == BROKEN
    assert text in found['form strip on cpu'].detail
    assert found['backend reference on cpu'].status == OK


def test_a_form_that_cannot_run_is_absent(monkeypatch):
    monkeypatch.setattr(
        self_test, 'available_forms',
        lambda x, spec: dict(fused='no vectors here', strip=None))
    fused, strip, *_ = self_test.self_test(full=True)
    assert (fused.status, fused.detail) == (ABSENT,
                                            'cannot run: no vectors here')
    assert strip.status == OK


def test_the_verdict_names_what_was_not_tested():
    checks = Check('numpy', OK), Check('form fused', UNTESTED, 'can run')
    found = Diagnosis({}, {}, checks, 1.5)
    assert 'form fused  untested  can run' in str(found)
    assert found.verdict == ('All that was tested works (2 checks in 2 s). '
                             'Not tested: form fused; --full tests it.')
    assert not found.broken
    assert Diagnosis({}, {}, checks[:1], 1).verdict == \
        'All that is installed works (1 checks in 1 s).'


def test_the_command_finds_nothing_broken(tmp_path):
    script = Path(sys.executable).with_name('shiftwise')
    done = run_fresh(script, 'doctor', '--json', cwd=tmp_path)
    found = json.loads(done.stdout)
    assert [c for c in found['checks'] if c['status'] == BROKEN] == []
    assert done.returncode == 0 and found['healthy']
    checks = {c['name']: c for c in found['checks']}
    assert checks['mmcv ops']['status'] == OK
    assert checks['form fused on cpu']['status'] == UNTESTED
    assert '--full' in checks['form fused on cpu']['detail']
    assert checks['taichi']['detail'].startswith('arch ')
    assert found['versions']['torch'] and found['compilers']['c++']


@pytest.mark.slow
def test_every_form_that_can_run_is_right():
    found = list(self_test.self_test(full=True))
    assert {c.name.split()[1] for c in found} >= {'fused', 'strip', 'shift',
                                                  'taichi', 'reference'}
    assert all(c.status == OK for c in found), found
