_base_ = './_base_/upernet_160k.py'

model = dict(
    backbone=dict(arch='small', **_base_.published.shiftwise),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384))
