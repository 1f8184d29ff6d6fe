_base_ = './_base_/mask-rcnn_1x.py'

model = dict(
    backbone=dict(arch='tiny', **_base_.published.shiftwise),
    neck=dict(in_channels=[80, 160, 320, 640]))
