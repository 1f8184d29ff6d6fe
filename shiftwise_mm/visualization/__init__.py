"""Pictures of the operator and of sparse networks."""
from .shifts import plot_shifts
from .sparsity import Places, plot_places, plot_taps_kept

__all__ = ['Places', 'plot_places', 'plot_shifts', 'plot_taps_kept']
