# mmdet's DINO with four scales, 12 epochs, with the optimizer of the published
# recipe and DINO's clipping of gradients.
_base_ = ['mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', './recipe.py']

model = dict(
    backbone=dict(
        _delete_=True, out_indices=(1, 2, 3), **_base_.published.backbone))
optim_wrapper = dict(
    _delete_=True,
    clip_grad=_base_.optim_wrapper.clip_grad,
    **_base_.published.optim_wrapper)
