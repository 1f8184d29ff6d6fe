"""Files that try to run something when they are loaded."""
from __future__ import annotations

import argparse
import builtins
import os

from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

SECRET = 'SHIFTWISE_TEST_HOSTILE'


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def poisoned_history(statistic):
    history = HistoryBuffer([1.], [1])
    history._statistics_methods = dict(history._statistics_methods,
                                       current=statistic)
    return history


HOSTILE = {
    'os.system': lambda: Call(os.system, f'export {SECRET}=1'),
    'eval': lambda: Call(eval, f'__import__("os").putenv("{SECRET}", "1")'),
    'real getattr': lambda: Call(getattr, dict, 'fromkeys'),
    'getattr chain': lambda: Call(
        getattr, Call(getattr, HistoryBuffer, 'min'), '__globals__'),
    'another method': lambda: Call(getattr, HistoryBuffer, '__init__'),
    'another owner': lambda: Call(getattr, argparse.Namespace, 'mean'),
    'builtin in a history': lambda: poisoned_history(builtins.exec),
    'function in a history': lambda: poisoned_history(os.system),
    'import': lambda: Call(__import__, 'os'),
    'globals of a scheduler': lambda: Call(
        getattr, Call(getattr, OneCycleParamScheduler, '_annealing_cos'),
        '__globals__'),
    'another method of a scheduler': lambda: Call(
        getattr, OneCycleParamScheduler, 'load_state_dict'),
}
