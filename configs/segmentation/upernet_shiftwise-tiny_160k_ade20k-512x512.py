# The published recipe for ADE20K: 160k iterations, 8 GPUs x 2 images.
#
# The single-scale test slides a window of 512 by 341; the whole image at once:
# model.test_cfg.mode=whole. Scales 0.5-1.75 with flip: mmseg's test.py --tta.
_base_ = [
    'mmseg::_base_/models/upernet_swin.py',
    'mmseg::_base_/datasets/ade20k.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_160k.py',
]

crop_size = (512, 512)
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(
        _delete_=True,
        type='shiftwise_mm.ShiftWiseNet',
        arch='tiny',
        kernel_sizes=(51, 49, 47, 13),
        small_kernel=3,
        ghost_ratio=0.23,
        num_paths=2,
        num_reps=4,
        drop_path_rate=0.4,
        layer_scale_init_value=1.0,
        norm_cfg=dict(type='SyncBN')),
    decode_head=dict(in_channels=[80, 160, 320, 640], num_classes=150),
    auxiliary_head=dict(in_channels=320, num_classes=150),
    test_cfg=dict(mode='slide', crop_size=crop_size, stride=(341, 341)))

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0.,
        bias_decay_mult=0.,
        # Layer scale and GRN.
        custom_keys=dict(gamma=dict(decay_mult=0.), beta=dict(decay_mult=0.))))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0,
         end=1500),
    dict(type='PolyLR', eta_min=0., power=1., begin=1500, end=160000,
         by_epoch=False),
]
train_dataloader = dict(batch_size=2)

# Lets load_from and tools/test.py take published weights.
custom_hooks = [dict(type='shiftwise_mm.ConvertPretrainedHook')]
