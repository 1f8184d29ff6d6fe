"""Folders of images: labels by the rules of torchvision, and refusals."""
import pytest
from helpers import make_image_folder
from mmengine.registry import DATASETS

from shiftwise_mm.datasets import DataError, ImageFolder

LOAD = [dict(type='mmcv.transforms.LoadImageFromFile',
             imdecode_backend='pillow')]


@pytest.fixture
def made(tmp_path):
    return make_image_folder(tmp_path / 'data',
                             {'n02': 2, 'n10': 1, 'B': 3, 'a': 1})


def items(data):
    return [(data[i]['img_path'], data[i]['gt_label'])
            for i in range(len(data))]


def test_labels_follow_the_names(made, tmp_path):
    root = tmp_path / 'data'
    (root / 'readme.txt').write_text('not a class')
    (root / 'a' / 'notes.txt').write_text('not an image')
    data = DATASETS.build(
        dict(type='shiftwise_mm.ImageFolder', data_root=str(root)))
    # Capitals first, as sorted() and torchvision have it.
    assert data.metainfo['classes'] == ('B', 'a', 'n02', 'n10')
    assert items(data) == [(str(path), label) for path, label in made]
    assert [label for _, label in items(data)] == [0, 0, 0, 1, 2, 2, 3]


def test_images_lie_at_any_depth_and_end_in_any_case(made, tmp_path):
    root = tmp_path / 'data'
    deep = root / 'a' / 'x' / 'y'
    deep.mkdir(parents=True)
    (root / 'a' / '0.jpg').rename(deep / '0.JPEG')
    (root / 'B').rename(tmp_path / 'elsewhere')
    (root / 'B').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'elsewhere' / 'sub').symlink_to(root / 'n10')
    found = items(ImageFolder(root))
    assert (str(deep / '0.JPEG'), 1) in found
    assert sum(label == 0 for _, label in found) == 4


def test_classes_of_a_part(made, tmp_path):
    names = ['z', 'n10', 'n02', 'B', 'a']
    (tmp_path / 'names.txt').write_text('\n'.join(names))
    for classes in names, str(tmp_path / 'names.txt'):
        data = ImageFolder(tmp_path / 'data', metainfo=dict(classes=classes))
        assert data.metainfo['classes'] == tuple(names)
        assert [label for _, label in items(data)] == [3, 3, 3, 4, 2, 2, 1]
    with pytest.raises(DataError, match="'B' and 1 more.*2 classes"):
        ImageFolder(tmp_path / 'data', metainfo=dict(classes=['n02', 'n10']))


@pytest.mark.parametrize('spoil, words', [
    (lambda root: 'gone', 'gone does not exist; expected is one folder a c'),
    (lambda root: 'a/0.jpg', 'is not a folder'),
    (lambda root: 'a', 'a holds no folders'),
    (lambda root: (root / 'empty').mkdir() or '', r'empty holds no images \('),
])
def test_a_bad_folder_is_one_line(spoil, words, made, tmp_path):
    root = tmp_path / 'data'
    with pytest.raises(DataError, match=words) as caught:
        ImageFolder(root / spoil(root))
    assert str(root) in str(caught.value)
    assert '\n' not in str(caught.value)


def truncate(path):
    path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize('spoil', [
    lambda path: path.write_text('no image'), truncate,
    lambda path: path.unlink()])
def test_a_broken_image_is_named(spoil, made, tmp_path):
    data = ImageFolder(tmp_path / 'data', pipeline=LOAD, test_mode=True)
    assert data[2]['img'].shape[2] == 3
    spoil(made[2][0])
    with pytest.raises(DataError, match=f'{made[2][0]} cannot be read'):
        data[2]
    assert data[1]['img_path'] == str(made[1][0])
