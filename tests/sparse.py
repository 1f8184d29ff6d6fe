"""A task that trains sparsely within a second, and what is looked at."""
from __future__ import annotations

import itertools

import torch
import torch.nn as nn
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, MODELS
from mmengine.runner import Runner

HOOK = dict(type='shiftwise_mm.CoarseSparsityHook', sparsity=.4,
            init='uniform', interval=2, path_gap=2)
BACKBONE = dict(
    type='shiftwise_mm.ShiftWiseNet',
    arch=dict(embed_dims=(8, 12), depths=(1, 2)), kernel_sizes=(13, 7),
    ghost_ratio=.25, num_reps=2, layer_scale_init_value=1.,
    drop_path_rate=.3, out_indices=(1, ))
SLAK = dict(
    type='shiftwise_mm.SLaK', arch=dict(embed_dims=(8, 12), depths=(1, 1)),
    kernel_sizes=(13, 9), small_kernel=3, width_factor=1.,
    layer_scale_init_value=1., out_indices=(1, ))
COUNTER = itertools.count()


@MODELS.register_module(name='SparseTask', force=True)
class Task(BaseModel):
    """Sorts noise into three classes.

    Args:
        backbone: Config.
        bad: Calls of ``forward`` whose loss is infinite.
        loss: What it is made of: the features, nothing, or a constant.
    """

    def __init__(self, backbone, bad=(), loss='features'):
        super().__init__()
        self.backbone = MODELS.build(backbone)
        self.dropout = nn.Dropout(.2)
        self.fc = nn.Linear(self.backbone.embed_dims[-1], 3)
        self.bad, self.kind, self.calls = bad, loss, 0

    def forward(self, inputs, labels, mode='tensor'):
        self.calls += 1
        x = torch.stack(list(inputs))
        if self.kind == 'constant':
            return dict(loss=(self.fc.weight * 0).sum())
        if self.kind == 'fixed':
            return dict(loss=torch.ones(()))
        logits = self.fc(self.dropout(self.backbone(x)[-1].mean((2, 3))))
        loss = F.cross_entropy(logits, torch.stack(list(labels)))
        if self.calls in self.bad:
            loss = loss * float('inf')
        if self.kind == 'nan':
            loss = loss * float('nan')
        return dict(loss=loss)


@MODELS.register_module(name='SparseNoLoss', force=True)
class NoLoss(Task):
    """Trains by itself."""

    def train_step(self, data, optim_wrapper):
        return {}


@DATASETS.register_module(name='SparseNoise', force=True)
class Noise(torch.utils.data.Dataset):
    """Images of three brightnesses."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        image = torch.rand(3, 32, 32,
                           generator=torch.Generator().manual_seed(index))
        return dict(inputs=image + index % 3, labels=torch.tensor(index % 3))


@HOOKS.register_module(name='SparseWatch', force=True)
class Watch(Hook):
    """Looks behind every iteration that masked weights are zero.

    Args:
        averaged: Whether an EMA is there, to be looked at as well.
    """

    priority = 'VERY_LOW'

    def __init__(self, averaged=False):
        self.averaged = averaged
        self.masks, self.weights = [], []

    def before_train_iter(self, runner, **kwargs):
        self.before = weights_of(runner.model)

    def after_train_iter(self, runner, **kwargs):
        assert_zero(runner.model, runner.optim_wrapper.optimizer)
        self.masks.append(masks_of(runner.model))
        self.weights.append((self.before, weights_of(runner.model)))
        if self.averaged:
            ema, = (hook.ema_model.module for hook in runner.hooks
                    if hasattr(hook, 'ema_model'))
            assert_zero(ema)
            assert_same(masks_of(ema), self.masks[-1])


@HOOKS.register_module(name='SparseNoDropout', force=True)
class NoDropout(Hook):
    """Nothing but the hook draws at random."""

    def before_train(self, runner):
        runner.model.dropout.p = 0.


def masks_of(model):
    """Copies of the masks, by name."""
    return {name: buffer.clone() for name, buffer in model.named_buffers()
            if name.rpartition('.')[2] in ('mask', 'mask_h', 'mask_v')}


def kernels_of(model, name):
    """Weights under the mask of that name, one a path."""
    layer, _, mask = name.rpartition('.')
    return model.get_submodule(layer).masked_kernels()[mask]


def weights_of(model):
    """Copies of the masked weights, ``(P, n, 1, h, w)`` by mask."""
    return {name: torch.stack([w.detach().clone()
                               for w in kernels_of(model, name)])
            for name in masks_of(model)}


def over_weights(mask):
    """``(P, n, 1, h, w)`` or to be broadcast to it."""
    return mask[:, :, None, None, None] if mask.dim() == 2 else mask[:, :,
                                                                     None]


def assert_zero(model, optimizer=None):
    """Masked weights are zero, kept ones are not; moments likewise."""
    for name, mask in masks_of(model).items():
        for path, weight in enumerate(kernels_of(model, name)):
            masked = ~over_weights(mask)[path].expand_as(weight)
            assert masked.any()
            tensors = [weight]
            if optimizer is not None:
                moments = [t for t in optimizer.state[weight].values()
                           if t.shape == weight.shape]
                assert moments or not optimizer.state[weight]
                tensors += moments
            for tensor in tensors:
                assert not tensor[masked].any(), name
                assert tensor[~masked].any(), name


def assert_same(actual, expected):
    assert actual.keys() == expected.keys() and len(actual) > 0
    for name, value in expected.items():
        assert torch.equal(actual[name], value), name


def runner_of(folder, max_iters=6, hook=HOOK, hooks=(), backbone=BACKBONE,
              model=None, optim_wrapper=None, save=None, **options):
    """A runner of the task, which saves every ``save`` iterations."""
    torch.manual_seed(3)
    hooks = [*([dict(hook)] if hook else []), *map(dict, hooks)]
    saving = dict(type='CheckpointHook', interval=save or 999,
                  save_last=save is not None, by_epoch=False)
    # Runners of one name within a second would share their scope.
    name = f'sparse{next(COUNTER)}'
    return Runner.from_cfg(Config({**dict(
        model={**dict(type='SparseTask', backbone=backbone), **(model or {})},
        work_dir=str(folder), default_scope='mmengine', custom_hooks=hooks,
        train_dataloader=dict(
            batch_size=3, num_workers=0,
            sampler=dict(type='InfiniteSampler', shuffle=False),
            dataset=dict(type='SparseNoise')),
        train_cfg=dict(by_epoch=False, max_iters=max_iters),
        optim_wrapper={**dict(optimizer=dict(
            type='AdamW', lr=1e-2, weight_decay=.1)), **(optim_wrapper or {})},
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1),
                           checkpoint=saving),
        log_processor=dict(by_epoch=False), randomness=dict(seed=0),
        experiment_name=name), **options}))


def train(folder, *args, averaged=False, watched=True, hooks=(), **options):
    """Trains; returns the runner and its watch."""
    watch = [dict(type='SparseWatch', averaged=averaged)] if watched else []
    runner = runner_of(folder, *args, hooks=[*hooks, *watch], **options)
    runner.train()
    return runner, runner.hooks[-1]


__all__ = [
    'BACKBONE', 'HOOK', 'SLAK', 'Task', 'assert_same', 'assert_zero',
    'kernels_of', 'masks_of', 'over_weights', 'runner_of', 'train',
    'weights_of'
]
