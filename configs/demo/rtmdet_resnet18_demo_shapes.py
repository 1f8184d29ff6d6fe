# ResNet-18 without pretrained weights in the recipe of `make demo`, for as
# many iterations as take the same time.
_base_ = './rtmdet_shiftwise-nano_demo_shapes.py'

max_iters = 1030
warm_up = min(100, max_iters // 8)

model = dict(
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=18,
        out_indices=(1, 2, 3),
        # mmdet's default suits pretrained weights only.
        norm_eval=False),
    neck=dict(in_channels=[128, 256, 512]))

train_cfg = dict(max_iters=max_iters, val_interval=max_iters // 2)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.01,
        by_epoch=False,
        begin=0,
        end=warm_up),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.01,
        by_epoch=False,
        begin=warm_up,
        end=max_iters,
        T_max=max_iters - warm_up)
]
default_hooks = dict(checkpoint=dict(interval=max_iters))
