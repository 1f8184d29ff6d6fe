# The published recipe for COCO: heads with four convolutions, GIoU and SyncBN,
# scales 480-800 with crop, 36 epochs, 8 GPUs x 2 images.
#
# mmdet's ConvNeXt config has these heads, scales and steps.
_base_ = 'mmdet::convnext/cascade-mask-rcnn_convnext-t-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py'  # noqa: E501

# What the base needs for its own backbone.
custom_imports = None
checkpoint_file = None

model = dict(
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
    neck=dict(in_channels=[80, 160, 320, 640]),
    roi_head=dict(bbox_head=[
        dict(head, reg_class_agnostic=True)
        for head in _base_.model.roi_head.bbox_head
    ]))

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
    constructor='shiftwise_mm.LayerDecayOptimWrapperConstructor',
    paramwise_cfg=dict(decay_rate=0.8, decay_type='layer_wise', num_layers=12))

# Lets load_from and tools/test.py take published weights.
custom_hooks = [dict(type='shiftwise_mm.ConvertPretrainedHook')]
