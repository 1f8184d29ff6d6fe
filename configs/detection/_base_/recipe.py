# What all COCO configs share, from the published recipe: options of
# the backbones, AdamW 1e-4 with weight decay 0.05, layer-wise decay 0.8 over
# 12 layers.
#
# In a variable, since no base may set what another one sets.
published = dict(
    backbone=dict(
        drop_path_rate=0.4,
        layer_scale_init_value=1.0,
        norm_cfg=dict(type='SyncBN')),
    shiftwise=dict(
        type='shiftwise_mm.ShiftWiseNet',
        kernel_sizes=(51, 49, 47, 13),
        small_kernel=3,
        ghost_ratio=0.23,
        num_paths=2,
        num_reps=4),
    optim_wrapper=dict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
        constructor='shiftwise_mm.LayerDecayOptimWrapperConstructor',
        paramwise_cfg=dict(
            decay_rate=0.8, decay_type='layer_wise', num_layers=12)))

# Lets load_from and tools/test.py take published weights.
custom_hooks = [dict(type='shiftwise_mm.ConvertPretrainedHook')]
