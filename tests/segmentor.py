"""A segmentor that trains within seconds, and its images."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

from shiftwise_mm.registry import MODELS

# Nothing in it is random, no pixel is unlabelled, and no norm learns from the
# batch: any split of a batch gives the same gradient.
CONFIG = """
_base_ = 'mmseg::_base_/default_runtime.py'
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[100.] * 3, std=[50.] * 3,
        bgr_to_rgb=True, pad_val=0, seg_pad_val=255, size=(64, 64)),
    backbone=dict(
        type='shiftwise_mm.ShiftWiseNet',
        arch=dict(embed_dims=(8, 12, 16, 20), depths=(1, 1, 2, 1)),
        kernel_sizes=(13, 13, 7, 5), ghost_ratio=0.25, norm_eval=True,
        norm_cfg=dict(type='SyncBN'), layer_scale_init_value=1.0,
        out_indices=(3, )),
    decode_head=dict(
        type='FCNHead', in_channels=20, in_index=0, channels=8, num_convs=1,
        num_classes=3, dropout_ratio=0.,
        norm_cfg=dict(type='GN', num_groups=2),
        loss_decode=dict(type='CrossEntropyLoss')),
    test_cfg=dict(mode='whole'))
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs')]
train_dataloader = dict(
    batch_size=4, num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset', data_root='data', img_suffix='.png',
        data_prefix=dict(img_path='img', seg_map_path='seg'),
        metainfo=dict(classes=('a', 'b', 'c'),
                      palette=[[0, 0, 0], [0, 255, 0], [255, 0, 0]]),
        pipeline=pipeline))
val_dataloader = dict(
    batch_size=1, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=train_dataloader['dataset'])
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
train_cfg = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper', optimizer=dict(type='SGD', lr=0.5, momentum=0.9))
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2))
randomness = dict(seed=0)
"""
NUM_IMAGES = 8


def _draw() -> tuple[np.ndarray, np.ndarray]:
    """Images (8, 64, 64, 3) of four coloured squares each, and their maps."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (NUM_IMAGES, 2, 2)).repeat(32, 1).repeat(32, 2)
    noise = rng.integers(0, 128, (NUM_IMAGES, 64, 64, 3))
    return ((noise + 127 * np.eye(3, dtype=int)[labels]).astype(np.uint8),
            labels.astype(np.uint8))


def make_segmentor(base: Path) -> Path:
    """``config.py``, and the pictures ``data/img``, ``data/seg``."""
    for folder, pictures in zip(('img', 'seg'), _draw(), strict=True):
        (base / 'data' / folder).mkdir(parents=True)
        for i, pixels in enumerate(pictures):
            Image.fromarray(pixels).save(base / 'data' / folder / f'{i}.png')
    (base / 'config.py').write_text(CONFIG)
    return base


def build_segmentor(base: Path, **options) -> torch.nn.Module:
    """The model, with ``__`` for each dot in the names of the options."""
    cfg = Config.fromfile(base / 'config.py')
    cfg.merge_from_dict({name.replace('__', '.'): value
                         for name, value in options.items()})
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg.model)
        model.init_weights()
    return model


def batch_of(indices) -> dict:
    """Inputs and samples of these images as a data loader gives them."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample
    images, maps = map(torch.from_numpy, _draw())
    samples = []
    for i in indices:
        sample = SegDataSample(metainfo=dict(img_shape=(64, 64)))
        sample.gt_sem_seg = PixelData(data=maps[i][None].long())
        samples.append(sample)
    return dict(inputs=[images[i].permute(2, 0, 1) for i in indices],
                data_samples=samples)
