_base_ = './_base_/atss_1x.py'

model = dict(
    backbone=dict(arch='tiny', **_base_.published.shiftwise),
    neck=dict(in_channels=[160, 320, 640]))
