_base_ = './_base_/upernet_160k.py'

model = dict(
    backbone=dict(
        type='shiftwise_mm.ConvNeXt',
        arch='tiny',
        norm_cfg=dict(type='LN', eps=1e-6)),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384))
