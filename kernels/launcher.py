"""Launches of compiled kernels without Taichi's own checks of arguments."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from . import openmp

__all__ = ['Kept', 'call']

_TESTED = (1, 7)  # Taichi's releases whose launches are as below
_launches: dict = {}  # by kernel: what Taichi compiled, what launches it


class Kept:
    """A launch as it was made last, for others that differ in addresses."""

    def __init__(self) -> None:
        self.kernel = self.function = self.context = self.launch = None
        self.given: list[int | None] = []
        self.sizes: list[tuple | None] = []  # bytes and shape of tensors

    def is_live(self) -> bool:
        """Whether it was made, and by the runtime that Taichi has now."""
        return self.function is not None and \
            self.function is _compiled(self.kernel)

    def again(self, addresses: dict[int, int]) -> None:
        """Launches with other tensors of the same sizes in these places.

        Only if :meth:`is_live`.
        """
        for i, address in addresses.items():
            self.point(i, address)
        openmp.alone(self.launch, self.context)

    def point(self, i: int, address: int) -> None:
        """Hands over where argument ``i`` lies, if that has changed."""
        if address != self.given[i]:
            self.given[i] = address
            self.context.set_arg_external_array_with_shape(
                (i, ), address, *self.sizes[i], 0)


def _compiled(kernel: Callable):
    """What Taichi compiled of it in the runtime that there is, or None."""
    # Emptied by ti.init.
    return next(iter(kernel._primal.compiled_kernels.values()), None)


def call(kernel: Callable, *arguments: Tensor | int,
         kept: Kept | None = None) -> None:
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
        arguments (Tensor | int): Contiguous, on the device of the runtime;
            ``ti.i32``.
        kept (Kept, optional): Always the same for one kernel and arguments
            of the same shapes: only new addresses and numbers are handed
            over. Defaults to None.
    """
    function = _compiled(kernel)
    if kept is None:
        kept = Kept()
    if function is None or kept.function is not function:
        launch = _launch(kernel._primal, function)
        if launch is None:
            # To what requires a gradient Taichi gives one.
            openmp.alone(kernel, *(a.detach() if isinstance(a, Tensor) else a
                                   for a in arguments))
            return
        kept.kernel, kept.function, kept.launch = kernel, function, launch
        kept.context = function.make_launch_context()
        kept.given = [None] * len(arguments)
        kept.sizes = [(a.nbytes, a.shape[:1]) if isinstance(a, Tensor)
                      else None for a in arguments]
    for i, argument in enumerate(arguments):
        if type(argument) is not int:
            kept.point(i, argument.data_ptr())
        elif argument != kept.given[i]:
            kept.given[i] = argument
            kept.context.set_arg_int((i, ), argument)
    openmp.alone(kept.launch, kept.context)


def _launch(kernel, function) -> Callable | None:
    """What launches ``function``, the one compiled so far, or None."""
    known, launch = _launches.get(kernel, (None, None))
    if known is None or known is not function:
        import taichi as ti
        if len(kernel.compiled_kernels) != 1 or \
                ti.__version__[:2] != _TESTED:
            return None
        from taichi.lang import impl
        program = impl.get_runtime().prog
        launch = partial(program.launch_kernel, program.compile_kernel(
            program.config(), program.get_device_caps(), function))
        _launches[kernel] = function, launch
    return launch
