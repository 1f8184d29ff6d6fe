"""Which CPU has vectors of 512 bits, and which computes them in halves."""
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
    (ZEN4, '', True),
    (ZEN4.replace('25', '26'), '', False),  # Zen 5
    (ZEN4.replace('25', '6').replace('AuthenticAMD', 'GenuineIntel'), '',
     False),
    (ZEN4.replace('AuthenticAMD', 'GenuineIntel'), '', False),
    ('processor\t: 0\nBogoMIPS\t: 50\n', '', False),  # Arm
    (None, WINDOWS, True),
    (None, WINDOWS.replace('25', '26'), False),
    (None, 'Intel64 Family 6 Model 25 Stepping 7, GenuineIntel', False),
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
        found = capability._is_zen3_or_4()
    assert found is expected


@pytest.mark.parametrize('name, only, units', [
    ('AVX2', True, True), ('AVX512', False, False), ('Zen 4', False, True),
    ('DEFAULT', False, False)])
def test_what_rules_ask(name, only, units, monkeypatch):
    pretend_cpu(monkeypatch, name)
    assert capability.has_avx2_only() is only
    assert capability.has_256_bit_units() is units
    assert capability.has_avx512() is (name in ('AVX512', 'Zen 4'))
    monkeypatch.setattr(capability, 'HALVES', True)  # of Zen 3, for one
    assert capability.has_avx2_only() is only
    assert capability.has_256_bit_units() is (units or name == 'AVX512')
