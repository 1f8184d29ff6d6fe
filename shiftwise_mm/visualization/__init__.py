"""Pictures of the operator, of networks and of trainings."""
from .curves import plot_curves
from .erf import plot_fields
from .files import save_figure, whole_file
from .shift_sums import kept_taps, plot_occupancy, plot_sum
from .shifts import plot_shifts
from .sparsity import Places, plot_places, plot_taps_kept

__all__ = ['Places', 'kept_taps', 'plot_curves', 'plot_fields',
           'plot_occupancy', 'plot_places', 'plot_shifts', 'plot_sum',
           'plot_taps_kept', 'save_figure', 'whole_file']
