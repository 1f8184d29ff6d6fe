# The seed paper's network with shared branches, 120 epochs; not tested. Its
# kernels are 51, 49, 45 and 13 (11, 10, 9 and 3 taps of 5x5), its width is
# SLaK-T's. Drop path and warm-up as in ConvNeXt-T's and upstream's training.
_base_ = './_base_/in1k-224.py'

max_epochs = 120

model = dict(
    backbone=dict(
        style='slak',
        kernel_sizes=(51, 49, 45, 13),
        small_kernel=5,
        ghost_ratio=0,
        num_paths=1,
        num_reps=1,
        width_factor=1.3,
        drop_path_rate=0.1),
    head=dict(in_channels=998))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        by_epoch=True,
        end=_base_.warm_up,
        convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-6,
        by_epoch=True,
        begin=_base_.warm_up,
        end=max_epochs,
        convert_to_iter_based=True)
]
train_cfg = dict(max_epochs=max_epochs)
