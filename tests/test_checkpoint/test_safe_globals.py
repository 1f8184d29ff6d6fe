"""Loading under ``weights_only=True``: what must load, and what must not."""
import argparse
import builtins
import os
import pickle

import pytest
import torch
from helpers import run_python, shared_path
from mmengine.logging import HistoryBuffer, MessageHub

import shiftwise_mm  # noqa: F401  its import registers the names

SECRET = 'SHIFTWISE_TEST_HOSTILE'


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def test_mmengines_history_loads(tmp_path):
    hub = MessageHub('safe-globals-test')
    for value in (3., 1., 2.):
        hub.update_scalar('train/loss', value)
    hub.update_info('iter', 3)
    file = tmp_path / 'iter_3.pth'
    torch.save(dict(message_hub=hub.state_dict(), state_dict={}), file)
    history = torch.load(file)['message_hub']['log_scalars']['train/loss']
    assert isinstance(history, HistoryBuffer)
    assert history.statistics('min') == 1. and history.current() == 2.


def test_it_needs_the_import(tmp_path):
    file = tmp_path / 'history.pth'
    torch.save(HistoryBuffer([1.], [1]), file)
    assert run_python(f'''
        import pickle, torch
        try:
            torch.load({str(file)!r})
        except pickle.UnpicklingError:
            print('refused')
        import shiftwise_mm
        print(torch.load({str(file)!r}).current())
    ''') == ['refused', '1.0']


@pytest.mark.parametrize('name', ['sw_v2_as_published.pth',
                                  'slak_as_published.pth'])
def test_published_files_load(name):
    content = torch.load(shared_path('golden', name))
    assert isinstance(content['args'], argparse.Namespace)
    assert all(isinstance(v, torch.Tensor) for v in content['model'].values())


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
}


@pytest.mark.parametrize('make', HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_run_nothing(make, tmp_path, monkeypatch):
    file = tmp_path / 'hostile.pth'
    torch.save(dict(state_dict={}, payload=make()), file)
    called = []
    monkeypatch.setattr(os, 'putenv', lambda *args: called.append(args))
    with pytest.raises(pickle.UnpicklingError):
        torch.load(file)
    assert not called and SECRET not in os.environ
