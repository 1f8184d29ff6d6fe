"""When modules may be computed together instead of called one by one."""
from __future__ import annotations

import torch
import torch.nn as nn
from torch.nn.modules import module as _torch_module

__all__ = ['is_plain', 'may_be_joined', 'is_chain']


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
        module._forward_hooks or module._forward_pre_hooks
        or module._backward_hooks or module._backward_pre_hooks
        or _torch_module._has_any_global_hook())


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
