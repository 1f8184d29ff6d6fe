"""torch's OpenMP threads sleep while Taichi's compute, and come back."""
import ctypes

import pytest
import torch
from shiftwise_mm.kernels import openmp

pytestmark = pytest.mark.skipif(
    openmp._openmp() is None, reason='the OpenMP of this torch cannot be '
    'given a region from outside')


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def _region() -> tuple[bool, int]:
    library = ctypes.CDLL(None)
    return bool(library.omp_in_parallel()), library.omp_get_num_threads()


def _inside() -> tuple[bool, int]:
    seen = []
    openmp.alone(lambda: seen.append(_region()))
    return seen[0]


def test_threads_sleep_and_come_back(two_threads):
    x = torch.randn(1 << 20)
    for _ in range(20):
        assert _inside() == (True, 2)
        assert _region() == (False, 1)
        assert torch.equal(x.relu(), x.clamp(min=0))


def test_an_error_inside_wakes_them(two_threads):

    def fail():
        raise KeyError

    with pytest.raises(KeyError):
        openmp.alone(fail)
    assert _region() == (False, 1)
    assert _inside() == (True, 2)


def test_one_thread_enters_nothing(two_threads):
    torch.set_num_threads(1)
    assert _inside() == (False, 1)
