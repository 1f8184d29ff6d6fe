"""What kind of vectors the CPU has, for rules that were fitted to each."""
from __future__ import annotations

import os
import re

import torch

__all__ = ['has_avx2_only', 'has_avx512', 'has_zen5_vectors',
           'favours_kernels']

_FAMILY = re.compile(r'family\s*:?\s*(\d+)', re.IGNORECASE)


def _is_zen5() -> bool:
    """Whether it is of AMD's family 26 or a later one."""
    # Windows: 'AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD'
    name = os.environ.get('PROCESSOR_IDENTIFIER', '')
    try:
        with open('/proc/cpuinfo', encoding='utf-8', errors='replace') as file:
            name += file.read(1000)  # its first processor
    except OSError:
        pass
    family = _FAMILY.search(name)
    return ('AuthenticAMD' in name and family is not None
            and int(family[1]) >= 26)


# Looked up here: compilers read a constant, but no operator of torch's own.
VECTORS = torch.backends.cpu.get_cpu_capability()
ZEN5 = VECTORS == 'AVX512' and _is_zen5()


def has_avx2_only() -> bool:
    """Whether this is an x86 CPU with AVX2 and without AVX-512."""
    return VECTORS == 'AVX2'


def has_avx512() -> bool:
    """Whether this is an x86 CPU with AVX-512."""
    return VECTORS == 'AVX512'


def has_zen5_vectors() -> bool:
    """Whether this is an AMD CPU that computes AVX-512 in whole vectors, of
    which MKL leaves half unused; Zen 4 computes them in halves.
    """
    return has_avx512() and ZEN5


def favours_kernels() -> bool:
    """Whether kernels in place of torch's operators are worth it within
    networks: with AVX2, on Zen 4 and with Intel's AVX-512, as measured. On
    Zen 5 and on other architectures that was not measured.
    """
    return has_avx2_only() or has_avx512() and not ZEN5
