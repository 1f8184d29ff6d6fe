"""Which CPU has vectors of 512 bits, and what rules make of it."""
import builtins
import io

import pytest
from helpers import pretend_cpu

from shiftwise_mm.ops import capability

ZEN4 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC 9654
"""
WINDOWS = 'AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD'


@pytest.mark.parametrize('cpuinfo, identifier, expected', [
    (ZEN4, '', False),
    (ZEN4.replace('25', '26'), '', True),  # Zen 5
    (ZEN4.replace('25', '27'), '', True),
    (ZEN4.replace('25', '6').replace('AuthenticAMD', 'GenuineIntel'), '',
     False),
    (ZEN4.replace('25', '26').replace('AuthenticAMD', 'GenuineIntel'), '',
     False),
    ('processor\t: 0\nBogoMIPS\t: 50\n', '', False),  # Arm
    (None, WINDOWS, False),
    (None, WINDOWS.replace('25', '26'), True),
    (None, 'Intel64 Family 6 Model 26 Stepping 7, GenuineIntel', False),
    (None, '', False),
])
def test_the_family(cpuinfo, identifier, expected, monkeypatch):
    def opened(path, *args, **kwargs):
        assert path == '/proc/cpuinfo'
        if cpuinfo is None:
            raise FileNotFoundError(path)
        return io.StringIO(cpuinfo)

    monkeypatch.setenv('PROCESSOR_IDENTIFIER', identifier)
    with monkeypatch.context() as context:
        context.setattr(builtins, 'open', opened)
        found = capability._is_zen5()
    assert found is expected


@pytest.mark.parametrize('name, only, wide, kernels', [
    ('AVX2', True, False, True), ('AVX512', False, False, True),
    ('Zen 5', False, True, False), ('DEFAULT', False, False, False)])
def test_what_rules_ask(name, only, wide, kernels, monkeypatch):
    pretend_cpu(monkeypatch, name)
    assert capability.has_avx2_only() is only
    assert capability.has_avx512() is (name in ('AVX512', 'Zen 5'))
    assert capability.has_zen5_vectors() is wide
    assert capability.favours_kernels() is kernels
    # torch may be told to use AVX2 alone there.
    monkeypatch.setattr(capability, 'ZEN5', True)
    assert capability.has_zen5_vectors() is (name in ('AVX512', 'Zen 5'))
    assert capability.favours_kernels() is (name == 'AVX2')
