# ShiftWiseNet-tiny (ShiftWise_v2) for 300 epochs; not tested.
_base_ = './_base_/in1k-224.py'
