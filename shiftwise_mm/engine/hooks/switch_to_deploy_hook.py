"""Validation and testing by the deployed form of a model."""
from __future__ import annotations

from collections.abc import Callable

import torch.nn as nn
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.distributed.fsdp import FullyShardedDataParallel

from shiftwise_mm.engine.deployables import deployed_copy, find_deployables
from shiftwise_mm.engine.inputs import InputError
from shiftwise_mm.registry import HOOKS

__all__ = ['SwitchToDeployHook']


@HOOKS.register_module()
class SwitchToDeployHook(Hook):
    """Validates and tests by the deployed form, as it will run later.

    For each validation and each test a deployed copy of every module with
    ``switch_to_deploy()`` is made, of ours and of others, and computes in its
    place. The model itself stays as it is: its modules, weights and names,
    what is trained, averaged (``EMAHook``: the copy is of the averaged
    weights) and saved, the best checkpoint among it, and the random numbers
    of the training. Wrappers such as ``MMDistributedDataParallel`` and models
    for test-time augmentation do not matter. The copies need the memory of
    another backbone while they are there.

    A model that is deployed already is tested as it is.

    Raises:
        InputError: At the start of a run, if a norm has no running
            statistics to fold (a group norm), or the model is sharded by
            FSDP, so that no copy can be made.

    Example:
        >>> custom_hooks = [dict(type='shiftwise_mm.SwitchToDeployHook')]
    """

    # Behind EMAHook, which puts the averaged weights in.
    priority = 'LOW'

    def __init__(self) -> None:
        self._replaced: list[tuple[nn.Module, Callable | None]] = []
        self._told = False

    def before_run(self, runner: Runner) -> None:
        """Tries it, rather than fail after the first epoch."""
        self._put_back()
        found = dict(find_deployables(runner.model))
        if any(isinstance(module, FullyShardedDataParallel)
               for module in runner.model.modules()):
            raise InputError('SwitchToDeployHook cannot copy what FSDP has '
                             'sharded: test the checkpoint instead')
        for name, module in found.items():
            try:
                deployed_copy(module)
            except (TypeError, ValueError) as error:
                raise InputError(f'SwitchToDeployHook cannot deploy {name}: '
                                 f'{error}') from error
        if not self._told:
            runner.logger.info(
                'SwitchToDeployHook: validation and tests run the deployed '
                f'form of {", ".join(found)}' if found else
                'SwitchToDeployHook: the model has nothing to deploy, or is '
                'deployed already')
        self._told = True

    def before_val_epoch(self, runner: Runner) -> None:
        """Lets deployed copies compute."""
        self._put_back()
        for _, module in find_deployables(runner.model):
            # The tree of modules stays: EMAHook swaps by the order of all
            # parameters, and checkpoints are saved in between.
            own = module.__dict__.pop('forward', None)  # a compiled one, say
            self._replaced.append((module, own))
            module.forward = deployed_copy(module).forward

    def after_val_epoch(self, runner: Runner,
                        metrics: dict[str, float] | None = None) -> None:
        """Lets the model compute again."""
        self._put_back()

    def before_test_epoch(self, runner: Runner) -> None:
        """As before a validation."""
        self.before_val_epoch(runner)

    def after_test_epoch(self, runner: Runner,
                         metrics: dict[str, float] | None = None) -> None:
        """As behind a validation."""
        self._put_back()

    def before_train_iter(self, runner: Runner, batch_idx: int,
                          data_batch: dict | None = None) -> None:
        """Makes sure of it where a validation has failed."""
        self._put_back()

    def _put_back(self) -> None:
        for module, own in self._replaced:
            module.__dict__.pop('forward', None)
            if own is not None:
                module.forward = own
        self._replaced = []
