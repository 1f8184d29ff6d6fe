"""Loading under ``weights_only=True``: what must load, and what must not."""
import argparse
import os
import pickle

import numpy as np
import pytest
import torch
from helpers import run_python, shared_path
from hostile import HOSTILE, SECRET
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.optim import scheduler

import shiftwise_mm  # noqa: F401  its import registers the names


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


@pytest.mark.parametrize('make', HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_run_nothing(make, tmp_path, monkeypatch):
    file = tmp_path / 'hostile.pth'
    torch.save(dict(state_dict={}, payload=make()), file)
    called = []
    monkeypatch.setattr(os, 'putenv', lambda *args: called.append(args))
    with pytest.raises(pickle.UnpicklingError):
        torch.load(file)
    assert not called and SECRET not in os.environ


SCHEDULERS = dict(
    ConstantLR={}, CosineAnnealingLR=dict(T_max=5, eta_min=0.),
    CosineRestartLR=dict(periods=[3], eta_min=0.),
    ExponentialLR=dict(gamma=.1), LinearLR={},
    MultiStepLR=dict(milestones=[1, 2]),
    OneCycleLR=dict(eta_max=.1, total_steps=10),
    PolyLR={}, ReduceOnPlateauLR=dict(monitor='loss'),
    StepLR=dict(step_size=3))


@pytest.mark.parametrize('name', SCHEDULERS)
def test_every_scheduler_of_mmengine_resumes(name, tmp_path):
    assert {n for n in dir(scheduler) if n.endswith('LR')} <= set(SCHEDULERS)

    def make():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 1.)
        return getattr(scheduler, name)(optimizer, **SCHEDULERS[name])

    file = tmp_path / 'scheduler.pth'
    torch.save(make().state_dict(), file)
    state = torch.load(file)
    other = make()
    other.load_state_dict(state)
    assert other.state_dict() == state
    other.optimizer.step()
    other.step(dict(loss=1.)) if name == 'ReduceOnPlateauLR' else other.step()


@pytest.mark.parametrize('strategy', ['cos', 'linear'])
def test_one_cycle_anneals_as_before(strategy, tmp_path):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 1.)
    state = scheduler.OneCycleLR(
        optimizer, eta_max=.1, total_steps=10,
        anneal_strategy=strategy).state_dict()
    torch.save(state, tmp_path / 'state.pth')
    loaded = torch.load(tmp_path / 'state.pth')
    assert loaded['anneal_func'] is state['anneal_func']


@pytest.mark.parametrize('value', [
    np.float32(1.5), np.float64(1.5), np.float16(1.5), np.int64(3),
    np.int32(3), np.uint8(3), np.bool_(True),
    np.array([[1, 2]], np.uint8), np.arange(3.)], ids=repr)
def test_metrics_and_palettes_load(value, tmp_path):
    """mmseg's best score is a float32 scalar."""
    torch.save(dict(best_score=value), tmp_path / 'meta.pth')
    loaded = torch.load(tmp_path / 'meta.pth')['best_score']
    assert loaded.dtype == value.dtype and np.array_equal(loaded, value)
