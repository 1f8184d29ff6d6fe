"""Optimizers' parameter groups and wrappers."""
from .cpu_amp import CpuAmpOptimWrapper
from .layer_decay import LayerDecayOptimWrapperConstructor

__all__ = ['CpuAmpOptimWrapper', 'LayerDecayOptimWrapperConstructor']
