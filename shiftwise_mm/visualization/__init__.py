"""Pictures of the operator."""
from .shifts import plot_shifts

__all__ = ['plot_shifts']
