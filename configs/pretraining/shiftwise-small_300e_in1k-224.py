# ShiftWiseNet-small for 300 epochs; not tested. The drop path rate is
# ConvNeXt-S's: upstream's for this size is not published.
_base_ = './_base_/in1k-224.py'

model = dict(
    backbone=dict(arch='small', drop_path_rate=0.4),
    head=dict(in_channels=768))
