"""Which CPU has vectors of 512 bits, and what rules make of it."""
import builtins
import io

import pytest
from helpers import pretend_cpu
from shiftwise_mm.kernels import capability

ZEN4 = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC 9654
"""
WINDOWS = 'AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD'


@pytest.mark.parametrize('cpuinfo, identifier, expected', [
    (ZEN4, '', ('AuthenticAMD', 25)),
    (ZEN4.replace('25', '26'), '', ('AuthenticAMD', 26)),  # Zen 5
    (ZEN4.replace('25', '6').replace('AuthenticAMD', 'GenuineIntel'), '',
     ('GenuineIntel', 6)),
    (ZEN4.replace('AuthenticAMD', 'CentaurHauls'), '', ('', 0)),
    ('processor\t: 0\nBogoMIPS\t: 50\n', '', ('', 0)),  # Arm
    (None, WINDOWS, ('AuthenticAMD', 25)),
    (None, WINDOWS.replace('25', '26'), ('AuthenticAMD', 26)),
    (None, 'Intel64 Family 6 Model 26 Stepping 7, GenuineIntel',
     ('GenuineIntel', 6)),
    (None, '', ('', 0)),
])
def test_vendor_and_family(cpuinfo, identifier, expected, monkeypatch):
    def opened(path, *args, **kwargs):
        assert path == '/proc/cpuinfo'
        if cpuinfo is None:
            raise FileNotFoundError(path)
        return io.StringIO(cpuinfo)

    monkeypatch.setenv('PROCESSOR_IDENTIFIER', identifier)
    with monkeypatch.context() as context:
        context.setattr(builtins, 'open', opened)
        found = capability._maker()
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
    assert capability.sums_take_units_of_products() is (name == 'AVX512')


@pytest.mark.parametrize('vendor, family', [
    ('AuthenticAMD', 23), ('AuthenticAMD', 25), ('AuthenticAMD', 26),
    ('GenuineIntel', 6)])
def test_torch_may_be_told_to_use_less(vendor, family, monkeypatch):
    pretend_cpu(monkeypatch, 'AVX2')
    monkeypatch.setattr(capability, 'VENDOR', vendor)
    monkeypatch.setattr(capability, 'FAMILY', family)
    assert capability.sums_take_units_of_products() is (
        vendor == 'GenuineIntel')
    assert capability.has_avx2_only() and capability.favours_kernels()
    assert not capability.has_512_bit_units()
    assert not capability.has_zen5_vectors()
