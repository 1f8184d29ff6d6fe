_base_ = './_base_/cascade-mask-rcnn_ms-3x.py'

model = dict(
    backbone=dict(type='shiftwise_mm.SLaK', arch='tiny'),
    neck=dict(in_channels=[124, 249, 499, 998]))
