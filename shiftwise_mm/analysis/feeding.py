"""Feeds a model to a tracer, the way mmdet's and mmseg's own tools do."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor

__all__ = ['fed']


@contextmanager
def fed(model: nn.Module, shape: tuple[int, int]) -> Iterator[tuple]:
    """Makes ``model(*inputs)`` a plain forward pass of one image.

    A detector or segmentor (mmengine's ``BaseModel``) gets the image through
    its own data preprocessor, which may pad it, and runs in mode ``tensor``;
    auxiliary heads do not run in it. A two-stage detector runs its box heads
    on as many boxes as its proposal stage may keep (``test_cfg.rpn``; 1000 as
    a rule) and its mask heads on as many as the test may keep
    (``test_cfg.rcnn``; 100), whatever its weights are. Any other module gets
    the image as a batch of one.

    Args:
        model (nn.Module): The model; on leaving it is as it was.
        shape (tuple[int, int]): Height and width of the image in pixels.

    Yields:
        tuple: The positional arguments.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    image = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    image = image.to(next(model.parameters(), image).device)
    with ExitStack() as stack, torch.no_grad():
        try:
            if isinstance(model, BaseModel):
                inputs, samples = _preprocessed(model, image)
                _set(stack, model, 'forward',
                     partial(model.forward, data_samples=samples))
                for module in model.modules():
                    _fix_boxes(stack, module)
            else:
                inputs = image[None]
            yield (inputs, )
        finally:
            for module, mode in modes:
                module.training = mode


def _set(stack: ExitStack, module: nn.Module, name: str, function) -> None:
    """Hides a method behind ``function`` until the stack is left."""
    hidden = {name: module.__dict__[name]} if name in module.__dict__ else {}
    stack.callback(module.__dict__.update, hidden)
    stack.callback(module.__dict__.pop, name)  # runs before the update
    module.__dict__[name] = function


def _preprocessed(model: BaseModel, image: Tensor) -> tuple[Tensor, list]:
    shape = tuple(image.shape[1:])
    sample = BaseDataElement(metainfo=dict(
        img_shape=shape, ori_shape=shape, pad_shape=shape,
        batch_input_shape=shape, scale_factor=(1., 1.)))
    sample.gt_instances = InstanceData(  # some heads ask for them
        bboxes=image.new_zeros(0, 4), labels=image.new_zeros(0).long())
    data = model.data_preprocessor(
        dict(inputs=[image], data_samples=[sample]), False)
    inputs = data['inputs']
    if not isinstance(inputs, Tensor):
        inputs = torch.stack(list(inputs))
    return inputs, data['data_samples']


def _limit(head: nn.Module) -> int | None:
    """How many boxes an image the test keeps behind a head."""
    options = getattr(head, 'test_cfg', None)
    return options.get('max_per_img') if isinstance(options, dict) else None


def _fix_boxes(stack: ExitStack, detector: nn.Module) -> None:
    """Takes what random weights decide out of a two-stage detector."""
    rpn, roi = (getattr(detector, name, None)
                for name in ('rpn_head', 'roi_head'))
    if rpn is None or roi is None:
        return
    if _limit(rpn):
        _set(stack, rpn, 'predict',
             partial(_exactly, _limit(rpn), rpn.predict))
    masks = getattr(roi, 'mask_head', None)
    if masks is not None and _limit(roi):
        for head in masks if isinstance(masks, nn.ModuleList) else [masks]:
            _limit_batch(stack, head, _limit(roi))


def _exactly(number: int, predict, *args, **kwargs) -> list:
    """The proposals of each image, repeated or cut to ``number``."""
    return [
        found[torch.arange(number, device=found.bboxes.device) % len(found)]
        if len(found) else found for found in predict(*args, **kwargs)
    ]


def _limit_batch(stack: ExitStack, head: nn.Module, number: int) -> None:
    """Runs a head on the first ``number`` of its batch, pads what it gives."""
    given = []

    def cut(module, args):
        given.append(len(args[0]))
        return tuple(arg[:number] if isinstance(arg, Tensor) else arg
                     for arg in args)

    def padded(out, missing: int):
        if isinstance(out, Tensor):
            return F.pad(out, (0, 0) * (out.dim() - 1) + (0, missing))
        return type(out)(padded(part, missing) for part in out)

    def pad(module, args, out):
        return padded(out, max(given.pop() - number, 0))

    stack.callback(head.register_forward_pre_hook(cut).remove)
    stack.callback(head.register_forward_hook(pad).remove)
