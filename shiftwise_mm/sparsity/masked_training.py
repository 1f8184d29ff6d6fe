"""The masks of a model while it trains."""
from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn as nn
from mmengine.dist import broadcast
from torch import Tensor
from torch.optim import Optimizer

from shiftwise_mm.models.layers.kernel_masks import spread_mask

from .gradients import MaskedGradients
from .schedule import Schedule
from .targets import Target
from .updates import common_flags, drop_and_grow, random_flags

__all__ = ['GROWTHS', 'Change', 'MaskedTraining']

GROWTHS = ('random', 'gradient')


@dataclass(frozen=True)
class Change:
    """What an update did, summed over all layers and paths.

    Args:
        dropped, grown (int): Units that were kept and are not any more, and
            the reverse.
    """

    dropped: int
    grown: int


class MaskedTraining:
    """Keeps masked weights zero and changes the masks by a schedule.

    Steps are those that the optimizer makes: batches whose gradients are
    added up make one, and a step that mixed precision skips makes none. After
    each of them masked weights are exactly zero, and so is the state that the
    optimizer holds of them; their gradients never reach it.

    An update drops ``ceil(rate * kept)`` units of each layer and path, those
    of least summed magnitude, and grows as many
    (:func:`~shiftwise_mm.sparsity.updates.drop_and_grow`), at random or by
    the largest summed gradient; a unit that is grown starts at zero. Each
    path decides by itself. Every ``path_gap``-th update the paths decide as
    one: by magnitudes and gradients summed over them, beginning with the
    units that are largest together; then all have the same mask. How many
    units a layer keeps in each path never changes.

    Randomness is that of a generator of its own; masks and gradients are the
    same on all ranks.

    Args:
        targets (Sequence[Target]): The masks.
        schedule (Schedule): When they change, and by how much.
        growth (str): ``'random'`` or ``'gradient'``.
        seed (int): Of the generator.
        fixed (bool): Whether the masks never change.
        copies (Sequence[nn.Module]): Averaged copies of the model, whose
            masks and masked weights follow.
    """

    def __init__(self, targets: Sequence[Target], schedule: Schedule,
                 growth: str = 'random', seed: int = 0, *,
                 fixed: bool = False,
                 copies: Sequence[nn.Module] = ()) -> None:
        self.targets = tuple(targets)
        self.schedule = schedule
        self.growth = growth
        self.fixed = fixed
        self.steps = 0
        self.change: Change | None = None
        self._copies = [[target.same_in(copy) for copy in copies]
                        for target in self.targets]
        self._generator = torch.Generator('cpu').manual_seed(seed)
        self._gradients = MaskedGradients(self.targets, self._wants_gradients)
        self._optimizer: Optimizer | None = None
        self._handle = None

    def start(self, counts: Sequence[int]) -> None:
        """Draws the first masks, in each layer one for all paths.

        Args:
            counts (Sequence[int]): How many units of a path are kept, by
                target.
        """
        for i, (target, count) in enumerate(zip(self.targets, counts,
                                                strict=True)):
            self._set(i, random_flags(target.units, count, self._generator))

    def start_from_weights(self) -> None:
        """Masks what is zero, where a mask was not loaded with zeros in it.

        Of a mask that masks nothing it is not known whether it was loaded.
        """
        for i, target in enumerate(self.targets):
            flags = target.flags()
            self._set(i, target.unit_sums(target.weights) > 0
                      if flags.all() else flags)

    def restart(self) -> None:
        """Makes the masks count that the layers hold, as after loading."""
        for i, target in enumerate(self.targets):
            self._set(i, target.flags())

    def attach(self, optimizer: Optimizer) -> None:
        """Begins to watch the steps of the optimizer of the kernels."""
        self._optimizer = optimizer
        self._handle = optimizer.register_step_post_hook(self._after_step)
        self._gradients.attach()
        self._mask_weights()
        self._ask_for_gradients(self._wants_gradients())

    def detach(self) -> None:
        """Lets go of optimizer and parameters."""
        if self._handle is not None:
            self._handle.remove()
        self._gradients.detach()
        self._ask_for_gradients(False)

    def densities(self) -> dict[str, float]:
        """Share of the units that is kept, over all paths, by stage."""
        kept: dict[str, list[Tensor]] = {}
        for target in self.targets:
            kept.setdefault(target.stage, []).append(target.flags().flatten())
        return {stage: torch.cat(flags).float().mean().item()
                for stage, flags in sorted(kept.items())}

    def state_dict(self) -> dict:
        """All that is not in the model: steps and random generator."""
        return dict(steps=self.steps, generator=self._generator.get_state())

    def load_state_dict(self, state_dict: dict) -> None:
        """Loads what :meth:`state_dict` gave."""
        self.steps = state_dict['steps']
        self._generator.set_state(state_dict['generator'].cpu())
        if self._optimizer is not None:
            self._ask_for_gradients(self._wants_gradients())

    def _is_update(self, step: int) -> bool:
        return not self.fixed and self.schedule.is_update(step)

    def _wants_gradients(self) -> bool:
        return self.growth == 'gradient' and self._is_update(self.steps + 1)

    def _ask_for_gradients(self, wanted: bool) -> None:
        """Whether layers must not leave out what is masked until the step."""
        for target in self.targets:
            target.layer.whole_gradients = wanted

    def _after_step(self, optimizer: Optimizer, args, kwargs) -> None:
        # Fused optimizers are called, and skip the step by themselves.
        skipped = getattr(optimizer, 'found_inf', None)
        if skipped is not None and skipped.any():
            return
        self.steps += 1
        if self._is_update(self.steps):
            self._update()
        self._mask_weights()
        self._ask_for_gradients(self._wants_gradients())

    def _update(self) -> None:
        rate = self.schedule.rate(self.steps)
        common = self.schedule.is_common(self.steps)
        dropped = grown = 0
        for i, target in enumerate(self.targets):
            before = target.flags()
            self._set(i, self._decide(target, before, rate, common))
            after = target.flags()
            dropped += int((before & ~after).sum())
            grown += int((after & ~before).sum())
        self.change = Change(dropped, grown)

    def _decide(self, target: Target, flags: Tensor, rate: float,
                common: bool) -> Tensor:
        """The flags ``(P, U)`` after an update, by those before it."""
        magnitude = target.unit_sums(target.weights)
        if self.growth == 'gradient':
            growth = target.unit_sums(self._gradients.take(target))
        else:
            growth = torch.rand(flags.shape, generator=self._generator,
                                device='cpu')
        if common:
            flags = common_flags(flags, magnitude)[None]
            magnitude, growth = (part.sum(0, keepdim=True)
                                 for part in (magnitude, growth))
        paths = [
            drop_and_grow(own, *scores, math.ceil(rate * int(own.sum())))
            for own, *scores in zip(flags, magnitude, growth, strict=True)
        ]
        return torch.stack(paths)

    def _set(self, index: int, flags: Tensor) -> None:
        """Sets a mask, that of rank 0 on all ranks, and its copies."""
        target = self.targets[index]
        flags = flags.expand(len(target.weights), -1).contiguous()
        broadcast(flags)
        for each in (target, *self._copies[index]):
            each.set_flags(flags)

    @torch.no_grad()
    def _mask_weights(self) -> None:
        state = self._optimizer.state
        for target in self.targets:
            for flags, weight in zip(target.mask, target.weights,
                                     strict=True):
                masked = ~spread_mask(flags, weight)
                # Of one shape with the weight: moments, elementwise steps.
                own = state[weight].values() if weight in state else ()
                for tensor in (weight, *own):
                    if torch.is_tensor(tensor) and \
                            tensor.shape == weight.shape:
                        tensor.masked_fill_(masked, 0)
