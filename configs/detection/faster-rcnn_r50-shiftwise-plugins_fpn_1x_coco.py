# The layer as a plugin: behind the 3x3 convolution of every bottleneck from
# stage 2 on. Its norms start at zero, so that a pretrained ResNet computes
# what it did before.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'

model = dict(
    backbone=dict(plugins=[
        dict(
            cfg=dict(
                type='shiftwise_mm.ShiftWiseConv2d',
                kernel_size=51,
                bias=False,
                init_cfg=dict(type='Constant', layer='BatchNorm2d', val=0.)),
            stages=(False, True, True, True),
            position='after_conv2')
    ]))
