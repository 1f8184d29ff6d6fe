"""Times and memory, measured side by side on one machine."""
from .agreement import Disagreement
from .op import run_op
from .report import Goal, Report, Table, write_json
from .settings import Settings
from .timing import Budget

__all__ = [
    'Budget', 'Disagreement', 'Goal', 'Report', 'Settings', 'Table',
    'run_op', 'write_json'
]
