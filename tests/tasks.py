"""A detector, a segmentor and a classifier in miniature, and runners."""
from __future__ import annotations

import itertools

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from published import DIMS, MINI

BACKBONE = dict(
    type='shiftwise_mm.ShiftWiseNet', arch=MINI, layer_scale_init_value=.5)
DETECTOR = dict(
    type='mmdet.RetinaNet',
    data_preprocessor=dict(type='mmdet.DetDataPreprocessor'),
    backbone=BACKBONE,
    neck=dict(type='mmdet.FPN', in_channels=list(DIMS), out_channels=8,
              start_level=1, add_extra_convs='on_input', num_outs=5),
    bbox_head=dict(
        type='mmdet.RetinaHead', num_classes=3, in_channels=8,
        stacked_convs=1, feat_channels=8,
        anchor_generator=dict(
            type='mmdet.AnchorGenerator', octave_base_scale=4,
            scales_per_octave=1, ratios=[1.], strides=[8, 16, 32, 64, 128]),
        bbox_coder=dict(type='mmdet.DeltaXYWHBBoxCoder')),
    train_cfg=dict(
        assigner=dict(type='mmdet.MaxIoUAssigner', pos_iou_thr=.5,
                      neg_iou_thr=.4, min_pos_iou=0),
        sampler=dict(type='mmdet.PseudoSampler'), allowed_border=-1,
        pos_weight=-1, debug=False),
    test_cfg=dict(nms_pre=10, score_thr=.05, nms=dict(
        type='nms', iou_threshold=.5), max_per_img=5))
SEGMENTOR = dict(
    type='mmseg.EncoderDecoder',
    data_preprocessor=dict(type='mmseg.SegDataPreProcessor', size=(64, 64)),
    backbone=BACKBONE,
    decode_head=dict(
        type='mmseg.FCNHead', in_channels=DIMS[3], in_index=3, channels=8,
        num_convs=1, num_classes=3, dropout_ratio=0.,
        norm_cfg=dict(type='BN')),
    train_cfg=dict(), test_cfg=dict(mode='whole'))
CLASSIFIER = dict(
    type='shiftwise_mm.ImageClassifier',
    data_preprocessor=dict(type='mmengine.ImgDataPreprocessor'),
    backbone={**BACKBONE, 'norm_out': False, 'out_indices': (3, )},
    head=dict(type='shiftwise_mm.ShiftWiseClsHead', num_classes=7,
              in_channels=DIMS[3]))
MODELS = dict(detector=DETECTOR, segmentor=SEGMENTOR, classifier=CLASSIFIER)
SCOPES = dict(detector='mmdet', segmentor='mmseg', classifier='mmengine')
COUNTER = itertools.count()


@DATASETS.register_module(name='ImagesOfTheHook', force=True)
class Images(torch.utils.data.Dataset):
    """Noise with a box, a map or a label."""

    def __init__(self, name, **kwargs):
        self.name = name

    def __len__(self):
        return 4

    def __getitem__(self, index):
        image = torch.rand(3, 64, 64,
                           generator=torch.Generator().manual_seed(index))
        meta = dict(img_shape=(64, 64), ori_shape=(64, 64),
                    pad_shape=(64, 64), batch_input_shape=(64, 64),
                    scale_factor=(1., 1.))
        if self.name == 'detector':
            from mmdet.structures import DetDataSample
            sample = DetDataSample(metainfo=meta)
            sample.gt_instances = InstanceData(
                bboxes=torch.tensor([[4., 4., 40., 40.]]),
                labels=torch.tensor([index % 3]))
        elif self.name == 'classifier':
            sample = BaseDataElement(gt_label=torch.tensor([index % 3]))
        else:
            from mmseg.structures import SegDataSample
            sample = SegDataSample(metainfo=meta)
            sample.gt_sem_seg = PixelData(
                data=torch.full((1, 64, 64), index % 3))
        return dict(inputs=image, data_samples=sample)


def runner_of(name, folder, hooks=(dict(
        type='shiftwise_mm.ConvertPretrainedHook'), ), **options):
    """A runner of one of the models."""
    torch.manual_seed(3)
    cfg = Config(dict(
        model=MODELS[name], work_dir=str(folder), default_scope=SCOPES[name],
        custom_hooks=list(hooks), randomness=dict(seed=0),
        # Runners of one name within a second would share their scope.
        experiment_name=f'hook{next(COUNTER)}', **options))
    return Runner.from_cfg(cfg)


def training(name, max_iters):
    """Options by which it trains, and saves every second iteration."""
    return dict(
        train_dataloader=dict(
            batch_size=2, num_workers=0,
            sampler=dict(type='InfiniteSampler', shuffle=False),
            dataset=dict(type='mmengine.ImagesOfTheHook', name=name)),
        train_cfg=dict(by_epoch=False, max_iters=max_iters),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
        param_scheduler=[
            dict(type='OneCycleLR', eta_max=1e-3, total_steps=9, end=9,
                 by_epoch=False)],
        default_hooks=dict(checkpoint=dict(
            type='CheckpointHook', interval=2, by_epoch=False)))
