# ImageNet-1K at 224x224: how the published figures were measured.
#
# Evaluation only: the published training needs RandAugment, mixup, CutMix and
# random erasing, which neither mmengine nor mmcv has. The model itself trains
# (cross-entropy with label smoothing 0.1); a train_dataloader, optim_wrapper
# and train_cfg of your own make it a recipe.
#
# The folder of the validation images has one folder a class, named by its
# WordNet id; another place: test_dataloader.dataset.data_root=...
model = dict(
    type='shiftwise_mm.ImageClassifier',
    data_preprocessor=dict(
        type='mmengine.ImgDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True),
    backbone=dict(
        type='shiftwise_mm.ShiftWiseNet',
        out_indices=(3, ),
        norm_out=False),
    head=dict(type='shiftwise_mm.ShiftWiseClsHead', num_classes=1000))

# As torchvision: decoded by Pillow without regard to EXIF, short side 256.
test_pipeline = [
    dict(
        type='mmcv.transforms.LoadImageFromFile',
        color_type='color_ignore_orientation',
        imdecode_backend='pillow'),
    dict(type='shiftwise_mm.ResizeShortSide', size=256),
    dict(type='mmcv.transforms.CenterCrop', crop_size=224),
    dict(type='shiftwise_mm.PackClsInputs')
]
test_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='mmengine.DefaultSampler', shuffle=False),
    dataset=dict(
        type='shiftwise_mm.ImageFolder',
        data_root='data/imagenet/val',
        test_mode=True,
        pipeline=test_pipeline))
val_dataloader = test_dataloader
test_evaluator = dict(type='shiftwise_mm.TopKAccuracy', topk=(1, 5))
val_evaluator = test_evaluator
test_cfg = dict()
val_cfg = dict()

# Lets load_from and tools/test.py take published weights.
custom_hooks = [dict(type='shiftwise_mm.ConvertPretrainedHook')]
