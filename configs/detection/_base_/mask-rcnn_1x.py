# mmdet's Mask R-CNN, 12 epochs, with the optimizer of the published recipe.
_base_ = ['mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', './recipe.py']

model = dict(backbone=dict(_delete_=True, **_base_.published.backbone))
optim_wrapper = dict(_delete_=True, **_base_.published.optim_wrapper)
