# ShiftWiseNet-tiny as published (ShiftWise_v2), 31.8 M parameters.
_base_ = './_base_/in1k-224.py'

model = dict(backbone=dict(arch='tiny'), head=dict(in_channels=640))
