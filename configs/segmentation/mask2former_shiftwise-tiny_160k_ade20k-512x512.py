_base_ = './_base_/mask2former_160k.py'

model = dict(
    backbone=dict(arch='tiny', **_base_.published.shiftwise),
    decode_head=dict(in_channels=[80, 160, 320, 640]))
