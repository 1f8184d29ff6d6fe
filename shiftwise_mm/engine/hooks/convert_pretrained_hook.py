"""Published weights as ``load_from`` of a whole model."""
from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import Runner

from shiftwise_mm.checkpoint.loading import adapt_checkpoint, find_backbones
from shiftwise_mm.registry import HOOKS

__all__ = ['ConvertPretrainedHook']


@HOOKS.register_module()
class ConvertPretrainedHook(Hook):
    """Lets ``load_from`` and ``Runner.load_checkpoint`` take published files.

    mmengine opens only one kind of container and looks for the names of the
    whole model, so that a published file would give a detector, a segmentor
    or a classifier nothing. The hook opens the container, converts the names
    and puts the backbone's prefix before them; weights of a classifier go to
    the head of an :class:`~shiftwise_mm.models.ImageClassifier` and are
    ignored elsewhere. What was done is logged. Checkpoints that fit as they
    are, those of a resumed run among them, stay untouched, and so does
    everything if the model has no backbone of ours.

    Raises:
        ValueError: When loading, if the file holds no weights, or those of
            another backbone (unless its ``strict_load`` is False).
    """

    # Before EMAHook, which reads checkpoint['state_dict'].
    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if not list(find_backbones(runner.model)):
            return
        state_dict, report = adapt_checkpoint(
            runner.model, checkpoint, source=str(runner._load_from or ''))
        if report.changed or report.container != 'state_dict':
            checkpoint['state_dict'] = state_dict
            runner.logger.info(str(report))
