# ShiftWiseNet-tiny with coarse sparsity, the published training; not tested.
_base_ = './shiftwise-tiny_300e_in1k-224.py'

custom_hooks = [
    *_base_.custom_hooks,
    dict(
        type='shiftwise_mm.CoarseSparsityHook',
        sparsity=0.3,
        init='snip',
        prune_rate=0.3,
        growth='random',
        interval=100,
        path_gap=131)
]
