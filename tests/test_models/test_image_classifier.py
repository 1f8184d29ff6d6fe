"""The classifier, built and trained as from a config."""
import pytest
import torch
from helpers import assert_near, make_image_folder, randomise_norms
from mmengine.registry import MODELS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from shiftwise_mm.models import ImageClassifier

MINI = dict(
    type='shiftwise_mm.ImageClassifier',
    data_preprocessor=dict(
        type='mmengine.ImgDataPreprocessor', mean=[100, 110, 120],
        std=[50, 60, 70], bgr_to_rgb=True),
    backbone=dict(
        type='shiftwise_mm.ShiftWiseNet',
        arch=dict(embed_dims=(8, 12, 16, 20), depths=(1, 1, 1, 1)),
        kernel_sizes=(13, 13, 7, 5), layer_scale_init_value=1.,
        out_indices=(3, ), norm_out=False),
    head=dict(type='shiftwise_mm.ShiftWiseClsHead', num_classes=2,
              in_channels=20))


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = MODELS.build(MINI)
    randomise_norms(model)
    return model.eval()


def test_modes(model):
    assert isinstance(model, ImageClassifier)
    x = torch.randn(3, 3, 64, 50)
    feats = model.backbone(x)
    logits = model.head(feats)
    assert logits.shape == (3, 2)
    assert torch.equal(model(x), logits)
    assert torch.equal(model.extract_feat(x)[-1], feats[-1])
    for sample, logit in zip(model(x, mode='predict'), logits, strict=True):
        assert_near(sample.pred_score, logit.softmax(0))
    samples = [BaseDataElement(gt_label=torch.tensor([i])) for i in (0, 1, 1)]
    losses = model(x, samples, mode='loss')
    assert torch.equal(losses['loss'], model.head.loss(feats, samples)['loss'])


def test_images_are_normalised_in_rgb(model):
    images = [torch.randint(256, (3, 64, 50), dtype=torch.uint8)
              for _ in range(2)]
    samples = [BaseDataElement(metainfo=dict(img_path=str(i)))
               for i in range(2)]
    result = model.test_step(dict(inputs=images, data_samples=samples))
    x = torch.stack(images).flip(1).float()
    x -= torch.tensor([100., 110, 120]).view(3, 1, 1)
    x /= torch.tensor([50., 60, 70]).view(3, 1, 1)
    for i, (sample, logit) in enumerate(zip(result, model(x), strict=True)):
        assert sample.img_path == str(i)
        assert_near(sample.pred_score, logit.softmax(0))


def test_bad_modes_are_named(model):
    x = torch.randn(1, 3, 64, 64)
    with pytest.raises(ValueError, match="mode.*'predict'.*'train'"):
        model(x, mode='train')
    with pytest.raises(ValueError, match='loss.*data_samples.*None'):
        model(x, mode='loss')


def test_training_lowers_the_loss(tmp_path):
    """Through mmengine's Runner, on a folder of two classes."""
    pytest.importorskip('mmcv.transforms')
    make_image_folder(tmp_path / 'data', dict(cat=4, dog=4))
    runner = Runner(
        model=MINI, work_dir=str(tmp_path / 'work'),
        train_dataloader=dict(
            batch_size=8, num_workers=0,
            sampler=dict(type='InfiniteSampler', shuffle=True),
            dataset=dict(
                type='shiftwise_mm.ImageFolder',
                data_root=str(tmp_path / 'data'),
                pipeline=[
                    dict(type='mmcv.transforms.LoadImageFromFile'),
                    dict(type='mmcv.transforms.Resize', scale=(64, 64)),
                    dict(type='mmcv.transforms.RandomFlip', prob=.5),
                    dict(type='shiftwise_mm.PackClsInputs')])),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=3e-3)),
        train_cfg=dict(by_epoch=False, max_iters=20),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
        randomness=dict(seed=0), experiment_name='training_lowers_the_loss')
    before = {n: p.clone() for n, p in runner.model.named_parameters()}
    model = runner.train()
    losses = runner.message_hub.get_scalar('train/loss').data[0]
    assert len(losses) == 20
    # Label smoothing of 0.1 over two classes leaves 0.199.
    assert losses[0] > .5 and losses[-5:].mean() < .5 * losses[0]
    for name, parameter in model.named_parameters():
        assert not torch.equal(parameter, before[name]), name
