"""What kind of vectors the CPU has, for rules that were fitted to each."""
from __future__ import annotations

import os
import re

import torch

__all__ = ['has_avx2_only', 'has_avx512', 'has_256_bit_units']

_FAMILY_25 = re.compile(r'family\s*:?\s*25\b', re.IGNORECASE)


def _is_zen3_or_4() -> bool:
    """Whether it is of AMD's family 25; of it only Zen 4 has AVX-512."""
    # Windows: 'AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD'
    name = os.environ.get('PROCESSOR_IDENTIFIER', '')
    try:
        with open('/proc/cpuinfo', encoding='utf-8', errors='replace') as file:
            name += file.read(1000)  # its first processor
    except OSError:
        pass
    return 'AuthenticAMD' in name and _FAMILY_25.search(name) is not None


# Looked up here: compilers read a constant, but no operator of torch's own.
VECTORS = torch.backends.cpu.get_cpu_capability()
# Whether instructions of AVX-512 are computed in halves.
HALVES = VECTORS == 'AVX512' and _is_zen3_or_4()


def has_avx2_only() -> bool:
    """Whether this is an x86 CPU with AVX2 and without AVX-512."""
    return VECTORS == 'AVX2'


def has_avx512() -> bool:
    """Whether this is an x86 CPU with AVX-512."""
    return VECTORS == 'AVX512'


def has_256_bit_units() -> bool:
    """Whether it computes 256 bits at a time: with AVX2 alone, and Zen 4's
    AVX-512, whose peak is half of a CPU's that computes whole vectors.
    """
    return has_avx2_only() or has_avx512() and HALVES
