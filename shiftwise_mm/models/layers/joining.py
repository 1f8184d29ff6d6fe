"""When modules may be computed together instead of called one by one."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn as nn
from torch.nn.modules import module as _torch_module

__all__ = ['is_plain', 'may_be_joined', 'is_chain', 'Unchanged']


def _hooks_of(module: nn.Module) -> tuple[dict, ...]:
    return (module._forward_hooks, module._forward_pre_hooks,
            module._backward_hooks, module._backward_pre_hooks)


def is_plain(module: nn.Module, kind: type) -> bool:
    """Whether a module is of this very type, and nobody but its parent hears
    of its calls.

    Compilers see its type alone: they follow no hooks of what is not called.

    Args:
        module (nn.Module): The module.
        kind (type): What it must be.
    """
    if torch.compiler.is_compiling():
        return type(module) is kind
    return type(module) is kind and not (
        any(_hooks_of(module)) or _torch_module._has_any_global_hook())


def may_be_joined(module: nn.Module, kind: type) -> bool:
    """Whether nobody would miss the call of a module.

    Not while a trace or a compiler follows, which want operators of torch's
    own, nor while all modules have a hook (as for torch's FLOP counter), nor
    if this one has a hook or is of another type, as adapters, observers and
    parametrizations are.

    Args:
        module (nn.Module): The module.
        kind (type): What it must be.
    """
    return not (torch.jit.is_tracing() or torch.compiler.is_compiling()
                or not is_plain(module, kind))


def is_chain(module: nn.Module, *kinds: type) -> bool:
    """Whether a module is an ``nn.Sequential`` that begins with such modules
    and nobody would miss their calls.

    Args:
        module (nn.Module): The module.
        kinds (type): What its first modules must be.
    """
    return may_be_joined(module, nn.Sequential) and \
        len(module) >= len(kinds) and all(
            map(is_plain, module, kinds))


class Unchanged:
    """Tells whether modules that were plain still are, and hold the same.

    A few looks instead of many: where caches are cold each takes its time.
    Values may change: of a parameter it looks at the object, its type, and
    where it lies, whose memory it does not hold.

    Args:
        modules (Sequence[nn.Module]): All that nobody may miss the calls of.
        parents (Sequence[nn.Module]): Those whose children are looked at.
        owners (Sequence[nn.Module]): Those whose parameters are.
    """

    def __init__(self, modules: Sequence[nn.Module],
                 parents: Sequence[nn.Module],
                 owners: Sequence[nn.Module]) -> None:
        self._hooks = [hooks for module in modules
                       for hooks in _hooks_of(module)]
        self._children = [(parent._modules, dict(parent._modules))
                          for parent in parents]
        self._parameters = [
            (owner._parameters, name, p, p.data_ptr(), p.dtype)
            for owner in owners for name, p in owner._parameters.items()
            if p is not None]

    def __bool__(self) -> bool:
        for children, known in self._children:
            if children != known:
                return False
        for parameters, name, known, address, dtype in self._parameters:
            if parameters.get(name) is not known or \
                    known.data_ptr() != address or known.dtype != dtype:
                return False
        return not (any(self._hooks)
                    or _torch_module._has_any_global_hook())
