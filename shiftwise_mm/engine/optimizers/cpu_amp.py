"""Mixed precision where there is no accelerator."""
from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn as nn
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import Tensor

from shiftwise_mm.registry import OPTIM_WRAPPERS

__all__ = ['CpuAmpOptimWrapper']


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """Mixed precision on a CPU: the forward pass under bf16 autocast.

    mmengine's ``AmpOptimWrapper`` refuses CPUs. This one has no scaler: bf16
    has the exponents of fp32, so that gradients do not underflow. Parameters,
    their gradients and the optimizer's state stay in fp32.

    Modules of ``mmcv.ops`` (RoIAlign, deformable convolution and attention)
    compute in fp32, since their CPU kernels know no bf16; their outputs have
    the dtype of their inputs.

    Args:
        kwargs: Those of ``mmengine.optim.OptimWrapper``.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self._prepared: nn.Module | None = None
        print_log('Mixed precision on the CPU: bf16 autocast, no loss scaling',
                  logger='current', level=logging.INFO)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The context of a forward pass of ``model``."""
        if model is not self._prepared:
            for module in model.modules():
                if _is_mmcv_op(module):
                    _InFloat32().watch(module)
            self._prepared = model
        with super().optim_context(model), \
                torch.autocast('cpu', torch.bfloat16):
            yield

    def load_state_dict(self, state_dict: dict) -> None:
        """Loads a state, also one of ``AmpOptimWrapper``."""
        state_dict.pop('loss_scaler', None)
        super().load_state_dict(state_dict)


def _is_mmcv_op(module: nn.Module) -> bool:
    return any(base.__module__.startswith('mmcv.ops.')
               for base in type(module).__mro__)


class _InFloat32:
    """Hooks by which a module computes in fp32 under autocast."""

    def __init__(self) -> None:
        self.context: torch.autocast | None = None
        self.dtype: torch.dtype | None = None

    def watch(self, module: nn.Module) -> None:
        module.register_forward_pre_hook(self.before, with_kwargs=True)
        # Also after an error, or autocast would stay off.
        module.register_forward_hook(self.after, always_call=True)

    def before(self, module: nn.Module, args: tuple, kwargs: dict):
        if not torch.is_autocast_enabled('cpu'):
            return None
        self.dtype = next(x.dtype for x in (*args, *kwargs.values())
                          if isinstance(x, Tensor) and x.is_floating_point())
        self.context = torch.autocast('cpu', enabled=False)
        self.context.__enter__()
        return _cast(args, torch.float32), _cast(kwargs, torch.float32)

    def after(self, module: nn.Module, args: tuple, output):
        if self.context is None:
            return None
        self.context.__exit__(None, None, None)
        self.context = None
        return _cast(output, self.dtype)


def _cast(value, dtype: torch.dtype):
    """Floating tensors in another dtype, also those in tuples and dicts."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.to(dtype)
    if isinstance(value, (tuple, list)):
        return type(value)(_cast(item, dtype) for item in value)
    if isinstance(value, dict):
        return {name: _cast(item, dtype) for name, item in value.items()}
    return value
