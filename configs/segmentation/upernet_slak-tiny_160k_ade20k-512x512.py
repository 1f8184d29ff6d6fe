_base_ = './_base_/upernet_160k.py'

model = dict(
    backbone=dict(type='shiftwise_mm.SLaK', arch='tiny'),
    decode_head=dict(in_channels=[124, 249, 499, 998]),
    auxiliary_head=dict(in_channels=499))
