# The layer through conv_cfg: in place of CSPNeXt's depthwise 5x5 convolutions.
# Weights for the others alone would mislead: it trains from scratch.
_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'

model = dict(
    backbone=dict(
        conv_cfg=dict(
            type='shiftwise_mm.DepthwiseToShiftWise',
            large_kernel=51,
            small_kernel=3,
            norm_cfg=dict(type='SyncBN')),
        init_cfg=None))
