_base_ = './mask-rcnn_shiftwise-tiny_fpn_1x_coco.py'

model = dict(
    backbone=dict(arch='base'), neck=dict(in_channels=[128, 256, 512, 1024]))
