"""Sparse training of large kernels in any of mmengine's trainings."""
from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch.nn as nn
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner

from shiftwise_mm.checkpoint.convert import first_few
from shiftwise_mm.engine.inputs import InputError
from shiftwise_mm.models.layers.kernel_masks import GRANULARITIES
from shiftwise_mm.ops.spec import check_int
from shiftwise_mm.registry import HOOKS
from shiftwise_mm.sparsity import (
    MaskedTraining,
    NoScoresError,
    Schedule,
    Target,
    check_masks,
    erk_counts,
    find_targets,
    snip_counts,
    snip_scores,
    uniform_counts,
)
from shiftwise_mm.sparsity.masked_training import GROWTHS

__all__ = ['CoarseSparsityHook']

INITS = ('snip', 'erk', 'uniform', 'from_weights')
PRUNES = ('magnitude', )
TARGETS = ('depthwise', )
_STATE = 'coarse_sparsity'  # in a checkpoint


@HOOKS.register_module()
class CoarseSparsityHook(Hook):
    """Trains with small kernels ("taps") switched off, and which ones changes.

    For detectors, segmentors and classifiers alike: every
    :class:`~shiftwise_mm.models.ShiftWiseConv2d` and the large kernels of
    SLaK get masks, unless they are frozen. Masked weights are exactly zero
    after every step of the optimizer, with their moments; their gradients
    move nothing. Every ``interval`` steps each layer drops a share of the taps
    that it keeps and grows as many; the share falls from ``prune_rate`` to
    0.005 in a cosine. See
    :class:`~shiftwise_mm.sparsity.masked_training.MaskedTraining` for the
    rules. The source is the published training of ShiftwiseConv
    (arXiv 2401.12736); it draws the number of taps at random too, here it is
    exact.

    The masks are buffers of the model. Checkpoints hold them and what the
    hook has to remember, so that a resumed training is one that was never
    stopped; copies of an ``EMAHook`` follow. A schedule counts steps of the
    optimizer: several batches whose gradients are added up are one, a step
    that mixed precision skips is none. All ranks have the same masks.

    The log shows ``density_stage0`` and so on, and after each update
    ``taps_dropped`` and ``taps_grown`` (``weights_...`` for that
    granularity), summed over layers and paths.

    Args:
        sparsity (float): Share that is masked, in [0, 1); with
            ``init='from_weights'`` it is that of the weights. Defaults to
            0.3.
        granularity (str): ``'tap'`` masks whole small kernels, ``'weight'``
            single weights (SLaK's fine-grained training). Defaults to
            ``'tap'``.
        init (str): How the first masks come about. ``'snip'``: one threshold
            over :func:`~shiftwise_mm.sparsity.snip.snip_scores` of the first
            batch gives each layer its density; ``'erk'``:
            :func:`~shiftwise_mm.sparsity.densities.erk_counts`;
            ``'uniform'``: the same density in each layer. The masks are then
            drawn at random, in each layer one for all paths.
            ``'from_weights'``: the masks that a loaded checkpoint holds, or
            what is zero in its weights; they never change. Defaults to
            ``'snip'``.
        prune_rate (float): Share of the kept that the first update drops, in
            [0, 1). Defaults to 0.3.
        prune (str): What is dropped: ``'magnitude'``, the least sum of
            absolute values.
        growth (str): What is grown: ``'random'``, or ``'gradient'``, the
            largest sum of absolute gradients. Defaults to ``'random'``.
        interval (int): Steps from one update to the next. Defaults to 100.
        path_gap (int): Every such update is one common decision of all
            paths. Defaults to 131.
        end (int, optional): The step at which the cosine ends and from which
            on masks stay. Defaults to the last step of the training.
        targets (str): Which convolutions: ``'depthwise'``, the large kernels.
        seed (int): Of the random generator of the hook. Defaults to 0.

    Raises:
        TypeError, ValueError: If an argument is not allowed.
        InputError: Before the first step, if the model has no such layer that
            is trained or none that has taps, no one optimizer trains them,
            the masks of a checkpoint fit no layer, ``init='snip'`` finds no
            loss, or ``'from_weights'`` nothing that is zero.

    Example:
        >>> custom_hooks = [dict(type='shiftwise_mm.CoarseSparsityHook',
        ...                      sparsity=0.4)]
    """

    # Before EMAHook, which copies the model with its masks and averages the
    # weights behind a step; behind ConvertPretrainedHook.
    priority = 'HIGH'

    def __init__(self,
                 sparsity: float = 0.3,
                 granularity: str = 'tap',
                 init: str = 'snip',
                 prune_rate: float = 0.3,
                 prune: str = 'magnitude',
                 growth: str = 'random',
                 interval: int = 100,
                 path_gap: int = 131,
                 end: int | None = None,
                 targets: str = 'depthwise',
                 seed: int = 0) -> None:
        for name, value in (('sparsity', sparsity), ('prune_rate',
                                                     prune_rate)):
            if not isinstance(value, (int, float)):
                raise TypeError(f'{name} must be a number, got {value!r}')
            if not 0 <= value < 1:
                raise ValueError(f'{name} must be in [0, 1), got {value}')
        for name, value, allowed in (
                ('granularity', granularity, GRANULARITIES),
                ('init', init, INITS), ('prune', prune, PRUNES),
                ('growth', growth, GROWTHS), ('targets', targets, TARGETS)):
            if value not in allowed:
                raise ValueError(f'{name} must be one of {allowed}, got '
                                 f'{value!r}')
        self.sparsity = sparsity
        self.granularity = granularity
        self.init = init
        self.prune_rate = prune_rate
        self.growth = growth
        self.interval = check_int('interval', interval, 1)
        self.path_gap = check_int('path_gap', path_gap, 1)
        self.end = None if end is None else check_int('end', end, 1)
        self.seed = check_int('seed', seed, 0)
        self._targets: list[Target] = []
        self._training: MaskedTraining | None = None
        self._resumed: dict | None = None
        self._needs_batch = False

    def before_run(self, runner: Runner) -> None:
        """Adds the masks, before weights are loaded and copies are made."""
        with _named(ValueError):
            self._targets = find_targets(_bare(runner.model),
                                         self.granularity)
        # Deployed models are tested by the same config.
        if not self._targets and isinstance(runner.optim_wrapper,
                                            OptimWrapper):
            raise InputError(
                'CoarseSparsityHook finds no layer to train sparsely in '
                f'{type(_bare(runner.model)).__name__}: it takes '
                'ShiftWiseConv2d and the large kernels of SLaK, not deployed '
                'and not frozen')

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Takes up the state of a resumed training."""
        if not self._targets:
            return
        weights = checkpoint.get('state_dict', checkpoint)
        with _named(ValueError):
            missing = check_masks(_bare(runner.model), self._targets, {
                name.removeprefix('module.'): value
                for name, value in weights.items()
            })
        if not runner._resume:
            return
        self._resumed = checkpoint.get(_STATE)
        if self._resumed is None:
            runner.logger.warning(
                'The checkpoint to resume from is not of a sparse training: '
                f'CoarseSparsityHook begins with init={self.init!r}')
        elif missing:
            raise InputError(
                'CoarseSparsityHook cannot go on: the checkpoint holds no '
                f'mask {first_few(missing)}')

    def before_train(self, runner: Runner) -> None:
        """Begins to watch the optimizer; masks without a batch are made."""
        wrapper = self._wrapper_of(runner.optim_wrapper)
        counts = wrapper._accumulative_counts
        end = self.end or math.ceil(runner.max_iters / counts)
        self._training = training = MaskedTraining(
            self._targets,
            Schedule(self.interval, self.path_gap, self.prune_rate, end),
            self.growth, self.seed, fixed=self.init == 'from_weights',
            copies=self._copies(runner))
        self._needs_batch = False
        if self._resumed is not None:
            training.load_state_dict(self._resumed)
            training.restart()
        else:
            training.steps = runner.iter // counts
            self._start()
        training.attach(wrapper.optimizer)
        self._resumed = None
        if not self._needs_batch:
            self._tell_densities(runner, told=True)

    def before_train_iter(self, runner: Runner, batch_idx: int,
                          data_batch: dict | None = None) -> None:
        """Makes the first masks by the first batch, with ``'snip'``."""
        if not self._needs_batch:
            return
        with _named(NoScoresError, "init='snip' of CoarseSparsityHook"):
            scores = snip_scores(_bare(runner.model), data_batch,
                                 self._targets)
        self._training.start(snip_counts(scores, 1 - self.sparsity))
        self._needs_batch = False
        self._tell_densities(runner, told=True)

    def after_train_iter(self, runner: Runner, batch_idx: int,
                         data_batch: dict | None = None,
                         outputs: dict | None = None) -> None:
        """Shows what an update did."""
        change, self._training.change = self._training.change, None
        if change is None:
            return
        for name in ('dropped', 'grown'):
            runner.message_hub.update_scalar(
                f'train/{self.granularity}s_{name}', getattr(change, name))
        self._tell_densities(runner)

    def before_save_checkpoint(self, runner: Runner,
                               checkpoint: dict) -> None:
        """Adds what a resumed training needs and the model does not hold."""
        if self._training is not None:
            checkpoint[_STATE] = self._training.state_dict()

    def after_train(self, runner: Runner) -> None:
        """Lets go of the model and its optimizer."""
        self._training.detach()

    def _start(self) -> None:
        """The first masks, if no batch is needed for them."""
        density = 1 - self.sparsity
        units = [target.units for target in self._targets]
        if self.init == 'snip':
            self._needs_batch = True
        elif self.init == 'uniform':
            self._training.start(uniform_counts(units, density))
        elif self.init == 'erk':
            self._training.start(erk_counts(
                [target.weights[0].shape for target in self._targets], units,
                density))
        else:
            self._training.start_from_weights()
            if all(target.mask.all() for target in self._targets):
                raise InputError(
                    "init='from_weights' of CoarseSparsityHook needs sparse "
                    f'weights, and no {self.granularity} of the '
                    f'{len(self._targets)} masks is zero: give a sparse '
                    'checkpoint by load_from or init_cfg')

    def _wrapper_of(self, wrapper: OptimWrapper) -> OptimWrapper:
        """The one optimizer wrapper that trains the kernels."""
        wrappers = list(wrapper.values()) if isinstance(
            wrapper, OptimWrapperDict) else [wrapper]
        kernels = {id(weight) for target in self._targets
                   for weight in target.weights}
        found = [
            each for each in wrappers if any(
                id(param) in kernels for group in each.param_groups
                for param in group['params'])
        ]
        if len(found) != 1:
            raise InputError('CoarseSparsityHook needs one optimizer that '
                             f'trains the kernels, got {len(found)}')
        return found[0]

    def _copies(self, runner: Runner) -> list[nn.Module]:
        """The averaged models of EMA hooks, with masks."""
        models = [hook.ema_model.module for hook in runner.hooks
                  if hasattr(hook, 'ema_model')]
        for model in models:
            for target in self._targets:
                target.same_in(model).layer.add_masks(self.granularity)
        return models

    def _tell_densities(self, runner: Runner, told: bool = False) -> None:
        densities = self._training.densities()
        for stage, density in densities.items():
            runner.message_hub.update_scalar(f'train/density_{stage}',
                                             density)
        if told:
            runner.logger.info(
                f'Sparse training, density by {self.granularity}: '
                + ', '.join(f'{stage} {density:.4f}'
                            for stage, density in densities.items()))


@contextmanager
def _named(kind: type[ValueError],
           name: str = 'CoarseSparsityHook') -> Iterator[None]:
    """An error of that kind becomes one of the user's input."""
    try:
        yield
    except kind as error:
        raise InputError(f'{name}: {error}') from error


def _bare(model: nn.Module) -> nn.Module:
    while is_model_wrapper(model):
        model = model.module
    return model
