"""Launches of compiled kernels without Taichi's own checks of arguments."""
from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from . import openmp

__all__ = ['call']

_TESTED = (1, 7)  # Taichi's releases whose launches are as below
_handles: dict = {}  # by kernel: what Taichi compiled, and how it is launched


def call(kernel: Callable, *arguments: Tensor | int) -> None:
    """``kernel(*arguments)``, for kernels whose arguments never change type.

    On the CPU, while torch's threads sleep (:func:`.openmp.alone`).

    Taichi looks at the type and shape of each argument in every call, in
    Python: 0.3 ms for fifteen of them with cold caches, as much as a small
    convolution. Here only its first call in a runtime does so, which
    compiles; later ones hand over addresses. They use what Taichi does not
    document, and other releases than those tested are called as usual.

    Args:
        kernel (Callable): Decorated by ``ti.kernel``, without templates, its
            arrays of one dimension.
        arguments (Tensor | int): Contiguous and without grad, on the device
            of the runtime; ``ti.i32``.
    """
    compiled = kernel._primal.compiled_kernels  # emptied by ti.init
    function = next(iter(compiled.values()), None)
    known, handle = _handles.get(kernel._primal, (None, None))
    if function is None or function is not known:
        handle = _handle(compiled)
        if handle is None:
            openmp.alone(kernel, *arguments)
            return
        _handles[kernel._primal] = function, handle
    context = function.make_launch_context()
    for i, argument in enumerate(arguments):
        if isinstance(argument, int):
            context.set_arg_int((i, ), argument)
        else:
            context.set_arg_external_array_with_shape(
                (i, ), argument.data_ptr(), argument.nbytes,
                argument.shape[:1], 0)
    from taichi.lang import impl
    openmp.alone(impl.get_runtime().prog.launch_kernel, handle, context)


def _handle(compiled: dict):
    """What launches the one kernel compiled so far, or None."""
    import taichi as ti
    if len(compiled) != 1 or ti.__version__[:2] != _TESTED:
        return None
    from taichi.lang import impl
    program, (function, ) = impl.get_runtime().prog, compiled.values()
    return program.compile_kernel(program.config(),
                                  program.get_device_caps(), function)
