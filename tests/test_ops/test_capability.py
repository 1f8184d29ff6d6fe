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
    (ZEN4, '', 25),
    (ZEN4.replace('25', '26'), '', 26),  # Zen 5
    (ZEN4.replace('25', '6').replace('AuthenticAMD', 'GenuineIntel'), '',
     None),
    (ZEN4.replace('25', '26').replace('AuthenticAMD', 'GenuineIntel'), '',
     None),
    ('processor\t: 0\nBogoMIPS\t: 50\n', '', None),  # Arm
    (None, WINDOWS, 25),
    (None, WINDOWS.replace('25', '26'), 26),
    (None, 'Intel64 Family 6 Model 26 Stepping 7, GenuineIntel', None),
    (None, '', None),
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
        found = capability._amd_family()
    assert found == expected


@pytest.mark.parametrize('name, only, whole, zen5, kernels', [
    ('AVX2', True, False, False, True), ('AVX512', False, True, False, True),
    ('Zen 4', False, False, False, True), ('Zen 5', False, True, True, False),
    ('DEFAULT', False, False, False, False)])
def test_what_rules_ask(name, only, whole, zen5, kernels, monkeypatch):
    pretend_cpu(monkeypatch, name)
    assert capability.has_avx2_only() is only
    assert capability.has_avx512() is (name in ('AVX512', 'Zen 4', 'Zen 5'))
    assert capability.has_512_bit_units() is whole
    assert capability.has_zen5_vectors() is zen5
    assert capability.favours_kernels() is kernels


@pytest.mark.parametrize('family', [23, 25, 26])
def test_torch_may_be_told_to_use_less(family, monkeypatch):
    pretend_cpu(monkeypatch, 'AVX2')
    monkeypatch.setattr(capability, 'AMD_FAMILY', family)
    assert capability.has_avx2_only() and capability.favours_kernels()
    assert not capability.has_512_bit_units()
    assert not capability.has_zen5_vectors()
