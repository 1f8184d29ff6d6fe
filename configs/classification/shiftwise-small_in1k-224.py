# ShiftWiseNet-small as published (ShiftWise_v2), 57.3 M parameters.
_base_ = './_base_/in1k-224.py'

model = dict(backbone=dict(arch='small'), head=dict(in_channels=768))
