"""Preprocessing, compared with the published one in Pillow alone."""
import numpy as np
import pytest
import torch
from helpers import (
    ROOT,
    assert_near,
    make_image_folder,
    published_preprocessing,
)
from mmengine.config import Config
from mmengine.registry import MODELS, TRANSFORMS
from PIL import Image

from shiftwise_mm.datasets import ImageFolder, PackClsInputs, ResizeShortSide

CONFIG = ROOT / 'configs/classification/shiftwise-tiny_in1k-224.py'


def test_the_config_preprocesses_as_published(tmp_path):
    """Odd sizes, both orientations, JPEG and PNG, EXIF, grey, palette."""
    root = tmp_path / 'data'
    paths = [path for path, _ in make_image_folder(root, dict(a=4, b=2))]
    rng = np.random.default_rng(1)
    for name, size in (('up.png', (301, 227)), ('tall.png', (255, 1031)),
                       ('same.png', (256, 256)), ('tiny.png', (17, 23))):
        path = root / 'b' / name
        pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        paths.append(path)
    for mode in ('L', 'P', 'CMYK', 'RGBA'):
        path = root / 'b' / f'{mode}.{"tif" if mode == "CMYK" else "png"}'
        Image.open(paths[0]).convert(mode).save(path)
        paths.append(path)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter, which the published code ignores
    Image.open(paths[0]).save(root / 'b' / 'turned.jpg', exif=exif)
    paths.append(root / 'b' / 'turned.jpg')

    cfg = Config.fromfile(CONFIG)
    data = ImageFolder(root, pipeline=cfg.test_pipeline, test_mode=True)
    normalise = MODELS.build(cfg.model.data_preprocessor)
    assert len(data) == len(paths) == 15
    for i in range(len(data)):
        item = data[i]
        path = item['data_samples'].img_path
        paths.remove(root.joinpath(path))
        inputs = normalise(dict(inputs=[item['inputs']],
                                data_samples=[item['data_samples']]))
        assert_near(inputs['inputs'][0], published_preprocessing(path), 1e-6)
    assert not paths


def test_resize_follows_its_options():
    image = np.random.default_rng(0).integers(
        0, 256, (33, 50, 3), dtype=np.uint8)
    for name in 'bilinear', 'bicubic':
        resize = TRANSFORMS.build(dict(
            type='shiftwise_mm.ResizeShortSide', size=20, interpolation=name))
        result = resize(dict(img=image))
        expected = Image.fromarray(image).resize(
            (30, 20), getattr(Image.Resampling, name.upper()))
        assert (result['img'] == np.array(expected)).all()
        assert result['img_shape'] == (20, 30)
        assert repr(resize) == f"ResizeShortSide(size=20, " \
                               f"interpolation='{name}')"


@pytest.mark.parametrize('size, error', [(0, ValueError), (2.5, TypeError)])
def test_a_bad_size_is_named(size, error):
    with pytest.raises(error, match=f'size.*{size}'):
        ResizeShortSide(size)


def test_packing():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    results = dict(img=image[:, ::-1], gt_label=7, img_path='x', sample_idx=3,
                   ori_shape=(9, 9))
    packed = PackClsInputs()(results)
    assert set(packed) == {'inputs', 'data_samples'}
    assert packed['inputs'].dtype == torch.uint8
    pixels = image[:, ::-1].transpose(2, 0, 1)
    assert (packed['inputs'].numpy() == pixels).all()
    sample = packed['data_samples']
    assert sample.gt_label.tolist() == [7]
    assert sample.gt_label.dtype == torch.int64
    assert sample.metainfo == dict(img_path='x', sample_idx=3,
                                   ori_shape=(9, 9))
    del results['gt_label']
    sample = PackClsInputs(meta_keys=['img_path'])(results)['data_samples']
    assert sample.metainfo == dict(img_path='x') and 'gt_label' not in sample
