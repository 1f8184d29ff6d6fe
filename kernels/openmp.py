"""torch's OpenMP threads, laid to sleep while Taichi's compute."""
from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch

__all__ = ['alone']


class _OpenMP(NamedTuple):
    """What OpenMP and the C library are asked for."""
    start: Callable
    end: Callable
    reset: Callable
    post: Callable
    wait: int
    semaphore: ctypes.Array


@cache
def _openmp() -> _OpenMP | None:
    """Functions of torch's OpenMP and the C library, or None."""
    try:
        library = ctypes.CDLL(None)
        start, end = library.GOMP_parallel_start, library.GOMP_parallel_end
        reset, post = library.sem_init, library.sem_post
        wait = ctypes.cast(library.sem_wait, ctypes.c_void_p).value
    except (AttributeError, OSError, TypeError):  # another, or no, OpenMP
        return None
    start.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint]
    reset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint]
    post.argtypes = [ctypes.c_void_p]
    start.restype = end.restype = None
    # More than a sem_t takes anywhere, and aligned.
    return _OpenMP(start, end, reset, post, wait, (ctypes.c_int64 * 16)())


def alone(function: Callable, *arguments) -> None:
    """``function(*arguments)`` while torch's other threads sleep.

    They spin for some milliseconds after each operator, and on as many cores
    they would take one from Taichi's threads for a whole launch. Here they
    are given something to do, a parallel region in which each waits for a
    semaphore, by what GCC calls for ``#pragma omp parallel`` ("The libgomp
    ABI"; other OpenMPs have it as well). Where that is not to be had, they
    are left alone. It takes about 0.05 ms.

    By one thread at a time: there is one semaphore. An operator of torch
    inside would run on one thread.
    """
    openmp, threads = _openmp(), torch.get_num_threads()
    if openmp is None or threads < 2:
        function(*arguments)
        return
    start, wait = openmp.start, openmp.wait
    semaphore = ctypes.addressof(openmp.semaphore)
    openmp.reset(semaphore, 0, 0)  # a signal may have left some of it
    try:
        start(wait, semaphore, threads)
        function(*arguments)
    finally:
        for _ in range(threads - 1):
            openmp.post(semaphore)
        openmp.end()
