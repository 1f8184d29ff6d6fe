_base_ = './_base_/cascade-mask-rcnn_ms-3x.py'

# mmdet's own Swin-T: its defaults. Weights of the Swin repository load.
model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        drop_path_rate=0.4,
        convert_weights=True),
    neck=dict(in_channels=[96, 192, 384, 768]))
