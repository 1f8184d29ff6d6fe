# ShiftWiseNet-base as published (ShiftWise_v2), 100.3 M parameters.
_base_ = './_base_/in1k-224.py'

model = dict(backbone=dict(arch='base'), head=dict(in_channels=1024))
