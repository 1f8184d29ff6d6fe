# ResNet-18 without pretrained weights in the recipe of `make demo`, for as
# many iterations as take the same time.
_base_ = './rtmdet_shiftwise-nano_demo_shapes.py'

model = dict(
    backbone=dict(
        _delete_=True, type='ResNet', depth=18, out_indices=(1, 2, 3)),
    neck=dict(in_channels=[128, 256, 512]))
