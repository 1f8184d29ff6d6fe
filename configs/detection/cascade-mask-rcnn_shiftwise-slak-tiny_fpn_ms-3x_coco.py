_base_ = './cascade-mask-rcnn_shiftwise-tiny_fpn_ms-3x_coco.py'

model = dict(
    backbone=dict(style='slak', small_kernel=5),
    neck=dict(in_channels=[96, 192, 384, 768]))
