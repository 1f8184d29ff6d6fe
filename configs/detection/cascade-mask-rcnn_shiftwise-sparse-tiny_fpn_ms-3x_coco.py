# Fine-tunes sparse weights and keeps them so: taps that are zero in what
# init_cfg or load_from loads stay zero, and which ones never changes.
_base_ = './cascade-mask-rcnn_shiftwise-tiny_fpn_ms-3x_coco.py'

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='shiftwise_mm.CoarseSparsityHook', init='from_weights')
]
