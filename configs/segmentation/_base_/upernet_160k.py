# The published recipe for ADE20K: 160k iterations, 8 GPUs x 2 images.
#
# The single-scale test slides a window of 512 by 341; the whole image at once:
# model.test_cfg.mode=whole. Scales 0.5-1.75 with flip: test.py --tta.
_base_ = [
    'mmseg::_base_/models/upernet_swin.py',
    'mmseg::_base_/datasets/ade20k.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_160k.py',
    './recipe.py',
]

crop_size = (512, 512)
model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(_delete_=True, **_base_.published.backbone),
    decode_head=dict(num_classes=150),
    auxiliary_head=dict(num_classes=150),
    test_cfg=dict(mode='slide', crop_size=crop_size, stride=(341, 341)))

optim_wrapper = dict(_delete_=True, **_base_.published.optim_wrapper)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0,
         end=1500),
    dict(type='PolyLR', eta_min=0., power=1., begin=1500, end=160000,
         by_epoch=False),
]
train_dataloader = dict(batch_size=2)
tta_pipeline = _base_.published.tta_pipeline
# For --auto-scale-lr: 8 GPUs x 2 images.
auto_scale_lr = dict(enable=False, base_batch_size=16)
