_base_ = './_base_/upernet_160k.py'

# mmseg's own Swin-T: its defaults.
model = dict(
    backbone=dict(_delete_=True, type='SwinTransformer', drop_path_rate=0.4),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384))
