_base_ = './_base_/upernet_160k.py'

model = dict(
    backbone=dict(arch='base', **_base_.published.shiftwise),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512))
