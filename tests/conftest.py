"""Fixtures of all tests."""
from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest
import torch
from miniature import miniature  # noqa: F401  a fixture
from remembered import remember_all

remember_all()

# Where mmengine alone is installed (tools/test_pythons.py).
collect_ignore = [] if find_spec('mmdet') else [
    'test_models/test_in_other_networks.py',
    'test_models/test_instance_tta.py',
]


@pytest.fixture
def poison(monkeypatch):
    """Fills every fresh allocation with NaN: a skipped element shows."""
    new_empty, empty_like, empty = (torch.Tensor.new_empty, torch.empty_like,
                                    torch.empty)

    def poisoned(make):

        def wrapper(*args, **kwargs):
            tensor = make(*args, **kwargs)
            return tensor.fill_(float('nan')) \
                if tensor.is_floating_point() else tensor

        return wrapper

    monkeypatch.setattr(torch.Tensor, 'new_empty', poisoned(new_empty))
    monkeypatch.setattr(torch, 'empty_like', poisoned(empty_like))
    monkeypatch.setattr(torch, 'empty', poisoned(empty))


@pytest.fixture(autouse=True)
def _nothing_prepared():
    """What an earlier test's calls have chosen, by rules of its own, is gone.

    Only where somebody has imported it: many tests must not.
    """
    module = sys.modules.get('shiftwise_mm.ops.prepared')
    if module is not None:
        module._calls.clear()
