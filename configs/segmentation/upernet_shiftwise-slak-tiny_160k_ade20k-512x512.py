_base_ = './upernet_shiftwise-tiny_160k_ade20k-512x512.py'

model = dict(
    backbone=dict(style='slak', small_kernel=5),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384))
