"""Times and memory, measured side by side on one machine."""
from .agreement import Disagreement
from .model import run_model
from .op import run_op
from .paper_tables import run_table1, run_table3
from .prediction import H100, predict_table1
from .report import Goal, Report, Table, write_json
from .scaling import run_scaling
from .settings import Settings
from .table2 import run_table2
from .timing import Budget

__all__ = [
    'H100', 'Budget', 'Disagreement', 'Goal', 'Report', 'Settings', 'Table',
    'predict_table1', 'run_model', 'run_op', 'run_scaling', 'run_table1',
    'run_table2', 'run_table3', 'write_json'
]
