"""What kind of vectors the CPU has, for rules that were fitted to each."""
from __future__ import annotations

import torch

__all__ = ['has_avx2_only']

# Looked up here: compilers read a constant, but no operator of torch's own.
VECTORS = torch.backends.cpu.get_cpu_capability()


def has_avx2_only() -> bool:
    """Whether this is an x86 CPU with AVX2 and without AVX-512."""
    return VECTORS == 'AVX2'
