# The published recipe for COCO: heads with four convolutions, GIoU and SyncBN,
# scales 480-800 with crop, 36 epochs, 8 GPUs x 2 images.
#
# mmdet's ConvNeXt config has these heads, scales and steps.
_base_ = [
    'mmdet::convnext/cascade-mask-rcnn_convnext-t-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py',  # noqa: E501
    './recipe.py'
]

# What the base needs for its own backbone.
custom_imports = None
checkpoint_file = None

model = dict(
    backbone=dict(_delete_=True, **_base_.published.backbone),
    roi_head=dict(bbox_head=[
        dict(head, reg_class_agnostic=True)
        for head in _base_.model.roi_head.bbox_head
    ]))
optim_wrapper = dict(_delete_=True, **_base_.published.optim_wrapper)
