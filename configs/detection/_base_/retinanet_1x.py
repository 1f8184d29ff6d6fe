# mmdet's RetinaNet, 12 epochs, with the optimizer of the published recipe.
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', './recipe.py']

# The pyramid starts at stride 8. An output that nothing uses would have a norm
# without gradient, which breaks distributed training.
model = dict(
    backbone=dict(
        _delete_=True, out_indices=(1, 2, 3), **_base_.published.backbone),
    neck=dict(start_level=0))
optim_wrapper = dict(_delete_=True, **_base_.published.optim_wrapper)
