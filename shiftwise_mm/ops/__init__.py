"""The shift-wise operator: tables, forms, and their plain definition."""
from .autotune import set_autotune
from .forms import (
                    available_backends,
                    available_forms,
                    shift_add,
                    shiftwise_conv,
)
from .spec import ShiftSpec

__all__ = [
    'ShiftSpec', 'available_backends', 'available_forms',
    'set_autotune', 'shift_add', 'shiftwise_conv'
]
