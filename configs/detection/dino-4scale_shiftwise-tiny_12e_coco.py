_base_ = './_base_/dino-4scale_12e.py'

model = dict(
    backbone=dict(arch='tiny', **_base_.published.shiftwise),
    neck=dict(in_channels=[160, 320, 640]))
