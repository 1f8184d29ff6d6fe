# mmdet's ATSS, 12 epochs, with the optimizer of the published recipe.
_base_ = ['mmdet::atss/atss_r50_fpn_1x_coco.py', './recipe.py']

# As in retinanet_1x.py: outputs from stride 8 on.
model = dict(
    backbone=dict(
        _delete_=True, out_indices=(1, 2, 3), **_base_.published.backbone),
    neck=dict(start_level=0))
optim_wrapper = dict(_delete_=True, **_base_.published.optim_wrapper)
