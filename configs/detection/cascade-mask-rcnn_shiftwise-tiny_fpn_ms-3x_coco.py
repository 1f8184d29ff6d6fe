_base_ = './_base_/cascade-mask-rcnn_ms-3x.py'

model = dict(
    backbone=dict(arch='tiny', **_base_.published.shiftwise),
    neck=dict(in_channels=[80, 160, 320, 640]))
