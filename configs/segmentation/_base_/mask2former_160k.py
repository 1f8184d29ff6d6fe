# mmseg's Mask2Former, 160k iterations, with its own optimizer (a tenth of the
# learning rate for the backbone).
_base_ = [
    'mmseg::mask2former/mask2former_r50_8xb2-160k_ade20k-512x512.py',
    './recipe.py'
]

model = dict(backbone=dict(_delete_=True, **_base_.published.backbone))
tta_pipeline = _base_.published.tta_pipeline
