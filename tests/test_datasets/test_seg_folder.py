"""Folders of label maps: what is counted, and what is refused."""
import numpy as np
import pytest
from helpers import shared_path
from PIL import Image

from shiftwise_mm.datasets import (
    SHAPE_CLASSES,
    DataError,
    read_coco_folder,
    read_seg_folder,
)

SIZES = {'train': [(20, 12), (24, 16), (18, 12)], 'val': [(20, 12), (9, 7)]}


@pytest.fixture
def root(tmp_path):
    """A data set of three classes, with pixels that are not labelled."""
    rng = np.random.default_rng(0)
    root = tmp_path / 'data'
    for split, sizes in SIZES.items():
        for folder in ('images', 'annotations'):
            (root / folder / split).mkdir(parents=True)
        for i, (width, height) in enumerate(sizes):
            image = rng.integers(0, 256, (height, width, 3), np.uint8)
            Image.fromarray(image).save(root / f'images/{split}/{i}.jpg')
            labels = rng.integers(0, 3, (height, width), np.uint8)
            labels[0, :5] = 255
            save(labels, root / f'annotations/{split}/{i}.png')
    return root


def save(labels, path):
    Image.fromarray(labels).save(path)


def load(path):
    return np.array(Image.open(path))


def error(root, **options):
    with pytest.raises(DataError) as caught:
        read_seg_folder(root, **options)
    message = str(caught.value)
    assert '\n' not in message and str(root) in message
    return message


def test_what_it_counts(root):
    folder = read_seg_folder(root)
    assert folder.root == root and folder.classes == ('0', '1', '2')
    assert (folder.image_suffix, folder.map_suffix) == ('.jpg', '.png')
    assert folder.warnings == ()
    for split in ('train', 'val'):
        half = getattr(folder, split)
        assert half.num_images == len(SIZES[split])
        assert half.image_dir == root / 'images' / split
        assert half.map_dir == root / 'annotations' / split
        maps = [load(p) for p in half.map_dir.iterdir()]
        assert half.pixels == tuple(
            sum(int((m == label).sum()) for m in maps) for label in range(3))
    assert folder.train.median_size == (20, 12)
    assert folder.val.median_size == (14.5, 9.5)


def test_it_finds_what_mmseg_finds(root):
    """In folders below too, but nothing hidden; the same pixels."""
    from mmseg.datasets import BaseSegDataset
    for folder in ('images', 'annotations'):
        deep = root / folder / 'train' / 'deep'
        deep.mkdir()
        for path in list((root / folder / 'train').glob('1.*')):
            path.rename(deep / path.name)
        (root / folder / 'train' / '.0.jpg').write_text('')
    folder = read_seg_folder(root)
    data = BaseSegDataset(
        metainfo=dict(classes=folder.classes),
        data_prefix=dict(img_path=str(folder.train.image_dir),
                         seg_map_path=str(folder.train.map_dir)),
        pipeline=[dict(type='mmseg.LoadAnnotations')])
    assert len(data) == folder.train.num_images == 3
    pixels = sum(np.bincount(data[i]['gt_seg_map'].ravel(), minlength=256)
                 for i in range(3))
    assert folder.train.pixels == tuple(pixels[:3])


@pytest.mark.parametrize('mode', ['P', '1', 'I;16'])
def test_maps_of_other_modes(root, mode):
    """A palette's colours are not the labels, its indices are."""
    from mmseg.datasets.transforms import LoadAnnotations
    for path in root.glob('annotations/*/*.png'):
        labels = load(path)
        if mode == '1':
            Image.fromarray(labels == 1).save(path)
        elif mode == 'P':
            image = Image.fromarray(labels)
            image.putpalette(list(np.random.default_rng(0).bytes(768)))
            image.save(path)
        else:
            Image.fromarray(labels.astype(np.uint16)).save(path)
        assert Image.open(path).mode == mode
    folder = read_seg_folder(root)
    assert len(folder.classes) == (2 if mode == '1' else 3)
    step = LoadAnnotations()
    pixels = sum(
        np.bincount(step(dict(
            seg_map_path=str(path), seg_fields=[], reduce_zero_label=False,
        ))['gt_seg_map'].ravel(), minlength=256)
        for path in folder.train.map_dir.iterdir())
    assert folder.train.pixels == tuple(pixels[:len(folder.classes)])


def test_names(root):
    (root / 'classes.txt').write_text('sky\n\n sea \nland\nghost\n')
    folder = read_seg_folder(root)
    assert folder.classes == ('sky', 'sea', 'land', 'ghost')
    assert folder.train.pixels[3] == 0
    assert folder.warnings == tuple(
        f"{root / 'annotations' / s}: class 'ghost' is in no label map"
        for s in SIZES)
    assert read_seg_folder(root, classes=('a', 'b', 'c')).classes == (
        'a', 'b', 'c')
    assert 'label 2 occurs, but there are 2' in error(
        root, classes=('a', 'b'))


def test_a_class_of_one_half_is_told(root):
    for path in root.glob('annotations/val/*.png'):
        save(np.minimum(load(path), 1), path)
    folder = read_seg_folder(root)
    assert folder.classes == ('0', '1', '2')
    assert folder.warnings == (
        f"{root / 'annotations/val'}: class '2' is in no label map", )


def test_the_generated_shapes(made):
    folder = read_seg_folder(
        made, images='{}', maps='semantic/{}',
        classes=('background', *SHAPE_CLASSES))
    boxes = read_coco_folder(made)
    assert folder.train.num_images == boxes.train.num_images
    assert folder.train.median_size == boxes.train.median_size
    assert all(folder.train.pixels) and not folder.warnings
    assert sum(folder.train.pixels) == 6 * 96 * 64


def test_real_cells():
    folder = read_seg_folder(shared_path('data', 'wbc'))
    assert (folder.train.num_images, folder.val.num_images) == (180, 60)
    assert len(folder.classes) == 3 and folder.train.median_size == (120, 120)
    assert min(folder.val.pixels) > 10**5 and not folder.warnings


def remove_root(root):
    import shutil
    shutil.rmtree(root)
    return 'does not exist; expected are the images in images/train and'


def root_is_a_file(root):
    remove_root(root)
    root.write_text('')
    return 'is not a folder'


def remove_folder(root):
    (root / 'annotations/val').rename(root / 'annotations/test')
    return 'annotations/val is not there; expected are'


def no_images(root):
    for path in (root / 'images/val').iterdir():
        path.unlink()
    return 'images/val holds no images (.jpg'


def no_maps(root):
    for path in (root / 'annotations/train').iterdir():
        path.rename(path.with_suffix('.txt'))
    return 'annotations/train holds no label maps (.png'


def two_suffixes(root):
    path = root / 'images/val/1.jpg'
    path.rename(path.with_suffix('.JPG'))
    return 'images/val/1.JPG ends in .JPG, but'


def map_missing(root):
    (root / 'annotations/train/1.png').unlink()
    return "annotations/train: label map '1.png' is missing, of 3"


def maps_missing(root):
    for i in (0, 2):
        (root / f'annotations/train/{i}.png').unlink()
    return "label map '0.png' and 1 more are missing"


def broken_map(root):
    path = root / 'annotations/val/0.png'
    path.write_bytes(path.read_bytes()[:40])
    return 'val/0.png cannot be read as an image'


def broken_image(root):
    (root / 'images/val/0.jpg').write_text('hello')
    return "images/val: image '0.jpg' cannot be read as an image"


def empty_image(root):
    (root / 'images/val/0.jpg').write_text('')
    return "image '0.jpg' is empty"


def colour_map(root):
    path = root / 'annotations/train/2.png'
    Image.open(path).convert('RGB').save(path)
    return 'train/2.png has the colour mode RGB; a label map has one channel'


def other_size(root):
    path = root / 'annotations/train/0.png'
    save(load(path)[:, :-1], path)
    return 'train/0.png has 19x12 pixels, but its image has 20x12'


def mask_of_255(root):
    for path in root.glob('annotations/*/*.png'):
        save(np.where(load(path) == 1, 255, 0).astype(np.uint8), path)
    return 'the label 0 alone beside 255'


def nothing_labelled(root):
    for path in root.glob('annotations/val/*.png'):
        save(np.full_like(load(path), 255), path)
    return 'annotations/val: the label maps hold no label beside 255'


def gaps(root):
    for path in root.glob('annotations/*/*.png'):
        save(np.where(load(path) == 2, 128, load(path)), path)
    return "labels up to 128 occur, but label 2 and 125 more are in no label"


def too_large(root):
    path = root / 'annotations/val/0.png'
    Image.fromarray(load(path).astype(np.uint16) * 200).save(path)
    return 'val/0.png holds the label'


def names_twice(root):
    (root / 'classes.txt').write_text('a\nb\na\n')
    return "classes.txt lists 'a' twice"


def no_names(root):
    (root / 'classes.txt').write_text('\n')
    return 'classes.txt is empty'


def names_in_another_encoding(root):
    (root / 'classes.txt').write_bytes('é\nb\nc'.encode('latin-1'))
    return 'classes.txt cannot be read as UTF-8 text'


@pytest.mark.parametrize('spoil', [
    remove_root, root_is_a_file, remove_folder, no_images, no_maps,
    two_suffixes, map_missing, maps_missing, broken_map, broken_image,
    empty_image, colour_map, other_size, mask_of_255, nothing_labelled, gaps,
    too_large, names_twice, no_names, names_in_another_encoding,
], ids=lambda f: f.__name__)
def test_what_is_refused(root, spoil):
    expected = spoil(root)
    assert expected in error(root)
