"""Launches of compiled kernels without Taichi's own checks of arguments."""
from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

__all__ = ['call']

_TESTED = (1, 7)  # Taichi's releases whose launches are as below


def call(kernel: Callable, *arguments: Tensor | int) -> None:
    """``kernel(*arguments)``, for kernels whose arguments never change type.

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
    import taichi as ti
    compiled = kernel._primal.compiled_kernels  # emptied by ti.init
    if len(compiled) != 1 or ti.__version__[:2] != _TESTED:
        kernel(*arguments)
        return
    from taichi.lang import impl
    function, = compiled.values()
    program = impl.get_runtime().prog
    context = function.make_launch_context()
    for i, argument in enumerate(arguments):
        if isinstance(argument, int):
            context.set_arg_int((i, ), argument)
        else:
            context.set_arg_external_array_with_shape(
                (i, ), argument.data_ptr(), argument.nbytes,
                argument.shape[:1], 0)
    program.launch_kernel(
        program.compile_kernel(program.config(), program.get_device_caps(),
                               function), context)
