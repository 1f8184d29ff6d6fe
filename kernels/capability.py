"""What kind of vectors the CPU has, for rules that were fitted to each."""
from __future__ import annotations

import os
import re

import torch

__all__ = ['has_avx2_only', 'has_avx512', 'has_512_bit_units',
           'has_zen5_vectors', 'sums_take_units_of_products',
           'favours_kernels']

_FAMILY = re.compile(r'family\s*:?\s*(\d+)', re.IGNORECASE)
_VENDOR = re.compile('AuthenticAMD|GenuineIntel')
_ZEN4, _ZEN5 = 25, 26  # families; of the first only Zen 4 has AVX-512


def _maker() -> tuple[str, int]:
    """Vendor and family of an x86 CPU of AMD or Intel, else ``('', 0)``."""
    # Windows: 'AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD'
    name = os.environ.get('PROCESSOR_IDENTIFIER', '')
    try:
        with open('/proc/cpuinfo', encoding='utf-8', errors='replace') as file:
            name += file.read(1000)  # its first processor
    except OSError:
        pass
    vendor, family = _VENDOR.search(name), _FAMILY.search(name)
    if vendor is None or family is None:
        return '', 0
    return vendor[0], int(family[1])


# Looked up here: compilers read a constant, but no operator of torch's own.
VECTORS = torch.backends.cpu.get_cpu_capability()
VENDOR, FAMILY = _maker() if VECTORS in ('AVX2', 'AVX512') else ('', 0)


def has_avx2_only() -> bool:
    """Whether this is an x86 CPU with AVX2 and without AVX-512."""
    return VECTORS == 'AVX2'


def has_avx512() -> bool:
    """Whether this is an x86 CPU with AVX-512."""
    return VECTORS == 'AVX512'


def has_512_bit_units() -> bool:
    """Whether this is a CPU that computes AVX-512 in whole vectors: Zen 4
    does so in halves, and its peak is that of AVX2.
    """
    return has_avx512() and not (VENDOR == 'AuthenticAMD' and FAMILY == _ZEN4)


def has_zen5_vectors() -> bool:
    """Whether this is a CPU of AMD that computes AVX-512 in whole vectors, as
    Zen 5 does: MKL leaves half of them unused.
    """
    return has_avx512() and VENDOR == 'AuthenticAMD' and FAMILY >= _ZEN5


def sums_take_units_of_products() -> bool:
    """Whether a sum takes the place of a product, as on Intel's CPUs with
    AVX2 or AVX-512: kernels with fused operations were faster there. AMD's
    have units of their own for sums; that was not measured there.
    """
    return VENDOR == 'GenuineIntel' and VECTORS in ('AVX2', 'AVX512')


def favours_kernels() -> bool:
    """Whether kernels in place of torch's operators are worth it within
    networks: with AVX2, on Zen 4 and with Intel's AVX-512, as measured. On
    Zen 5 and on other architectures that was not measured.
    """
    return has_avx2_only() or has_avx512() and not has_zen5_vectors()
