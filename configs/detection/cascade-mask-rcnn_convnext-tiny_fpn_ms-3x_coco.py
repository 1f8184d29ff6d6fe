_base_ = './_base_/cascade-mask-rcnn_ms-3x.py'

model = dict(
    backbone=dict(
        type='shiftwise_mm.ConvNeXt',
        arch='tiny',
        norm_cfg=dict(type='LN', eps=1e-6)),
    neck=dict(in_channels=[96, 192, 384, 768]))
