"""The one owner of ``ti.init``.

Taichi's runtime is a process singleton: a second ``ti.init`` throws away
everything compiled so far, the user's own kernels included. So Taichi is
initialised here, at the first launch and never at import; a runtime that the
user has initialised is used where its arch fits the tensor, and left alone
where it does not.
"""
import atexit
import contextlib
import importlib.util
import io
import os
import sys
import tempfile
import threading
from pathlib import Path

import torch

__all__ = [
    'reason', 'vector_reason', 'threads', 'ensure', 'launching',
    'is_foreign', 'on_cpu', 'cache_folder'
]

_lock = threading.RLock()
_found: bool | None = None
_owned_program = None  # the program that we made, to tell it from a user's
_owned_threads = 0
_owned_on_cpu = True
_exit_registered = False


def _import_taichi():
    # Both are read when taichi is imported or initialised: the first stops a
    # thread that phones home (and aborts two-process runs at exit), the
    # second a banner.
    os.environ.setdefault('TI_SKIP_VERSION_CHECK', 'ON')
    os.environ.setdefault('ENABLE_TAICHI_HEADER_PRINT', '0')
    import taichi
    return taichi


def _installed() -> bool:
    """Whether Taichi can be imported; looked up once, in all of the path."""
    global _found  # compilers warn of functools.cache
    if _found is None:
        _found = importlib.util.find_spec('taichi') is not None
    return _found


def _program():
    """The program of the live Taichi runtime, or None."""
    impl = sys.modules.get('taichi.lang.impl')
    return None if impl is None else impl.get_runtime().prog


def is_foreign() -> bool:
    """Whether someone else has initialised Taichi in this process."""
    program = _program()
    return program is not None and program is not _owned_program


def _arch_name() -> str:
    from taichi.lang import impl
    ti = _import_taichi()
    return ti._lib.core.arch_name(impl.current_cfg().arch)


def on_cpu(device: torch.device) -> bool:
    """Whether the CPU's kernels serve tensors on ``device``.

    Not where the caller has initialised Taichi for another arch, such as
    Vulkan: Taichi copies tensors of the CPU there and back, and a GPU's
    kernels fit.
    """
    return device.type == 'cpu' and not (
        is_foreign() and _arch_name() not in ('x64', 'arm64'))


def reason(device: torch.device) -> str | None:
    """Why tensors on ``device`` cannot be given to Taichi, or None.

    Initialises nothing, and imports Taichi only if that was done already.
    """
    if not _installed():
        return ("Taichi is not installed: pip install "
                "'shiftwise_mm[taichi]'")
    if device.type not in ('cpu', 'cuda'):
        return f'Taichi takes tensors on cpu or cuda, not on {device}'
    if device.type == 'cuda' and device.index not in (None, 0):
        return (f'Taichi uses the first visible GPU only, and the tensor is '
                f'on {device}: give each process one GPU through '
                'CUDA_VISIBLE_DEVICES')
    if is_foreign():
        arch = _arch_name()
        fits = arch == 'cuda' if device.type == 'cuda' else arch != 'cuda'
        if not fits:
            return (f'Taichi was initialised by the caller for arch={arch}, '
                    f'which does not fit a tensor on {device}: call ti.init '
                    'with the fitting arch, or leave it to shiftwise_mm')
    return None


def vector_reason(device: torch.device) -> str | None:
    """As :func:`reason`, for kernels that compute with vectors."""
    why = reason(device)
    if why is None and is_foreign():
        from taichi.lang import impl
        if impl.current_cfg().real_matrix_scalarize:
            return ('Taichi was initialised by the caller, and takes vectors '
                    'apart: call ti.init with real_matrix_scalarize=False, '
                    'or leave it to shiftwise_mm')
    return why


def cache_folder() -> Path:
    """Where the package keeps what it need not make again."""
    base = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(base, 'shiftwise_mm')


def _kernel_folder() -> str:
    """A folder for compiled kernels, one a rank: its lock may go stale."""
    folder = (cache_folder() / 'taichi' /
              f'rank{os.environ.get("LOCAL_RANK", "0")}')
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a read-only home: recompile once a machine's life
        folder = Path(tempfile.gettempdir(), f'shiftwise_mm-{os.getuid()}',
                      folder.name)
        folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


def threads() -> int:
    """How many Taichi gets: torch's, and four times as many where these fill
    all cores.

    Two that wake together often start on one core, and stay there for as
    long as a small launch takes; of eight some move.
    """
    torchs = torch.get_num_threads()
    cores = (len(os.sched_getaffinity(0))
             if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1)
    return torchs if torchs == 1 or torchs < cores else 4 * torchs


def _close() -> None:
    """Ends our runtime before the interpreter tears its threads down."""
    if _owned_program is not None and _program() is _owned_program:
        _import_taichi().reset()


def _is_ready(device: torch.device) -> bool:
    """Whether our runtime for the CPU is there, and ``device`` a CPU."""
    program = _program()
    return (program is not None and program is _owned_program
            and _owned_on_cpu and _owned_threads == torch.get_num_threads()
            and device.type == 'cpu')


def ensure(device: torch.device) -> None:
    """Makes Taichi ready for tensors on ``device``.

    The number of threads follows torch's; the CPU runtime is made anew when
    ``torch.set_num_threads`` has changed it (kernels come back from Taichi's
    cache). A runtime of the user's is never touched.

    Raises:
        RuntimeError: With :func:`reason` if Taichi cannot serve ``device``.
    """
    global _owned_program, _owned_threads, _owned_on_cpu, _exit_registered
    with _lock:
        if _is_ready(device):
            return  # most calls
        program = _program()
        why = reason(device)
        if why is not None:
            raise RuntimeError(why)
        if program is not None and (program is not _owned_program
                                    or not _owned_on_cpu):
            return
        ti = _import_taichi()
        # ti.init announces its arch on stdout, which belongs to the caller.
        with contextlib.redirect_stdout(io.StringIO()):
            ti.init(
                arch=ti.cuda if device.type == 'cuda' else ti.cpu,
                enable_fallback=False,
                log_level=ti.ERROR,
                cpu_max_num_threads=threads(),
                # The CPU's kernels compute with whole vectors.
                real_matrix_scalarize=device.type != 'cpu',
                offline_cache=True,
                offline_cache_file_path=_kernel_folder())
        _owned_program = _program()
        _owned_threads = torch.get_num_threads()
        _owned_on_cpu = device.type == 'cpu'
        if not _exit_registered:
            atexit.register(_close)
            _exit_registered = True


class launching:
    """Taichi made ready, and launches of other threads kept out.

    Args:
        device (torch.device): Of the tensors; see :func:`ensure`.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __enter__(self) -> None:
        _lock.acquire()
        try:
            if not _is_ready(self._device):
                ensure(self._device)
        except BaseException:
            _lock.release()
            raise

    def __exit__(self, *_) -> None:
        _lock.release()
