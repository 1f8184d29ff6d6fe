# What all ADE20K configs share, from the published recipe: options of the
# backbones, the optimizer, and the multi-scale test.
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
    # Upstream's config sets the layer-wise decay to 1, which is none. That of
    # mmseg's ConvNeXt: decay_rate=0.9, decay_type='stage_wise', num_layers=6.
    optim_wrapper=dict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
        constructor='shiftwise_mm.LayerDecayOptimWrapperConstructor',
        paramwise_cfg=dict(
            decay_rate=1.0, decay_type='layer_wise', num_layers=9)),
    # Multiples of the single-scale test's 2048x512; mmseg's own are multiples
    # of the image.
    tta_pipeline=[
        dict(type='LoadImageFromFile', backend_args=None),
        dict(
            type='TestTimeAug',
            transforms=[
                [
                    dict(
                        type='Resize',
                        scale=(int(2048 * r), int(512 * r)),
                        keep_ratio=True)
                    for r in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
                ],
                [
                    dict(type='RandomFlip', prob=0., direction='horizontal'),
                    dict(type='RandomFlip', prob=1., direction='horizontal')
                ],
                [dict(type='LoadAnnotations')],
                [dict(type='PackSegInputs')],
            ])
    ])

# Lets load_from and tools/test.py take published weights.
custom_hooks = [dict(type='shiftwise_mm.ConvertPretrainedHook')]
