"""The maintained fork of mmengine: its way around weights_only is closed.

The tests load through the fork where it is installed (``STACK=onedl``), and
everywhere through a stand-in that falls back as it does. On the other stack,
with which it clashes in one environment, the fork can be taken from a folder
that ``ONEDL_MMENGINE`` names: each test has a process of its own.
"""
import os

import pytest
import torch
from helpers import run_python
from hostile import HOSTILE, SECRET
from mmengine.logging import HistoryBuffer

from shiftwise_mm.stack import ONEDL, find_stack

FORK = os.environ.get('ONEDL_MMENGINE')
# What onedl-mmengine 0.10.12 does: the real getattr, then everything.
STAND_IN = '''
import pickle, torch
from mmengine.runner import checkpoint

def _safe_torch_load(file, map_location=None, weights_only=None):
    try:
        with torch.serialization.safe_globals([getattr]):
            return torch.load(file, map_location=map_location)
    except pickle.UnpicklingError:
        return torch.load(file, map_location=map_location, weights_only=False)

checkpoint._safe_torch_load = _safe_torch_load

@checkpoint.CheckpointLoader.register_scheme(prefixes='', force=True)
def load_from_local(filename, map_location):
    return checkpoint._safe_torch_load(filename, map_location=map_location)
'''


@pytest.fixture(params=['stand-in', 'fork'])
def setup(request):
    """Code that puts the fork, or a stand-in for it, in place."""
    if request.param == 'stand-in':
        return STAND_IN
    if FORK is None and find_stack() is ONEDL:
        return '''
from mmengine.runner import checkpoint
assert checkpoint._safe_torch_load
'''
    if FORK is None:
        pytest.skip('onedl-mmengine is not here: pip install --no-deps '
                    '--target DIR onedl-mmengine==0.10.12, then set '
                    'ONEDL_MMENGINE=DIR')
    return f'''
import sys
sys.path.insert(0, {FORK!r})
from mmengine.runner import checkpoint
assert checkpoint.__file__.startswith({FORK!r})
assert checkpoint._safe_torch_load
'''


LOAD = '''
import os, pickle, shiftwise_mm
from mmengine.runner import CheckpointLoader
for file in {files!r}:
    try:
        CheckpointLoader.load_checkpoint(file)
        print('loaded')
    except pickle.UnpicklingError as error:
        print('refused', {secret!r} in os.environ)
'''


def save_all(folder):
    files = []
    for i, make in enumerate(HOSTILE.values()):
        files.append(str(folder / f'{i}.pth'))
        torch.save(dict(state_dict={}, payload=make()), files[-1])
    return files


def printed(code):
    return [line for line in run_python(code)
            if line.startswith(('loaded', 'refused'))]


def test_hostile_files_are_refused(setup, tmp_path):
    code = setup + LOAD.format(files=save_all(tmp_path), secret=SECRET)
    assert printed(code) == ['refused False'] * len(HOSTILE)


def test_mmengines_own_files_load(setup, tmp_path):
    file = tmp_path / 'history.pth'
    torch.save(dict(history=HistoryBuffer([1.], [1])), file)
    # Twice: a load must not take back what was registered.
    code = setup + LOAD.format(files=[str(file)] * 2, secret=SECRET)
    assert printed(code) == ['loaded'] * 2


def test_the_stand_in_would_run_them(tmp_path):
    """Else the tests above would show nothing."""
    file = tmp_path / 'hostile.pth'
    torch.save(dict(payload=HOSTILE['real getattr']()), file)
    code = STAND_IN + f'''
print('refused' if not CheckpointLoader.load_checkpoint({str(file)!r})
      else 'loaded')
'''.replace('CheckpointLoader', 'checkpoint.CheckpointLoader')
    assert printed(code) == ['loaded']
