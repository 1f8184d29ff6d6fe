import copy
import dataclasses
import json
import shutil
from pathlib import Path

import cv2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from shiftwise_mm.datasets import DataError, read_coco_folder

# The header of an image of 65535 x 65535 pixels.
GIF_BOMB = b'GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff' + 9 * b'\0'

BCCD = Path(__file__).parents[2].parent / 'shared' / 'data' / 'bccd'


def _file(root, split):
    return root / 'annotations' / f'{split}.json'


def test_counts(made):
    folder = read_coco_folder(made)
    assert folder.root == made
    for name, split in (('train', folder.train), ('val', folder.val)):
        data = json.loads(_file(made, name).read_text())
        labels = [a['category_id'] for a in data['annotations']]
        assert split.ann_file == _file(made, name)
        assert split.image_dir == made / name
        assert split.num_boxes == len(labels)
        assert split.boxes_per_class == tuple(
            labels.count(c['id']) for c in data['categories']
        )
    with pytest.raises(dataclasses.FrozenInstanceError):
        folder.root = None


def test_accepts_a_string(made):
    assert read_coco_folder(str(made)) == read_coco_folder(made)


def test_bccd():
    if not BCCD.is_dir():
        pytest.skip(f'the BCCD data set is not at {BCCD}')
    folder = read_coco_folder(BCCD)
    assert folder.classes == ('RBC', 'WBC', 'Platelets')
    assert (folder.train.num_images, folder.val.num_images) == (205, 87)
    assert folder.train.boxes_per_class == (2381, 214, 209)
    assert folder.val.boxes_per_class == (967, 87, 83)
    assert folder.train.median_size == (640, 480)
    assert not folder.has_masks
    assert folder.warnings == ()


def test_classes_follow_the_file_as_labels_do(copied, edit):
    before = read_coco_folder(copied)
    edit('both', lambda data: data['categories'].reverse())
    after = read_coco_folder(copied)
    assert after.classes == before.classes[::-1]
    reverse = before.train.boxes_per_class[::-1]
    assert after.train.boxes_per_class == reverse


def test_crowds_are_not_counted(copied, edit):
    before = read_coco_folder(copied).train
    edit('train', lambda data: data['annotations'].append(
        {**data['annotations'][0], 'id': 999, 'iscrowd': 1}))
    after = read_coco_folder(copied).train
    assert after == before


def test_image_folder_is_missing(copied, error):
    shutil.rmtree(copied / 'val')
    assert f'{copied / "val"} is not there; the images of' in error(copied)


def test_images_are_missing(copied, error):
    (copied / 'train' / '000002.jpg').unlink()
    message = error(copied)
    assert "train: image '000002.jpg' is missing, of 6 in train" in message
    (copied / 'train' / '000004.jpg').unlink()
    message = error(copied)
    assert "'000002.jpg' and 1 more are missing, of 6" in message


@pytest.mark.parametrize('content, expected', [
    (b'', "image '000002.jpg' is empty (0 bytes)"),
    (b'not an image', "image '000002.jpg' cannot be read as an image"),
    (b'\xff\xd8\xff\xe0\x00\x10JFIF', "'000002.jpg' cannot be read as"),
    (b'\x89PNG\r\n\x1a\n' + 99 * b'\0', "'000002.jpg' cannot be read as"),
    (GIF_BOMB, 'cannot be read as an image (DecompressionBombError)'),
], ids=['0 bytes', 'text', 'cut jpeg', 'broken png', 'bomb'])
def test_image_is_unreadable(copied, error, content, expected):
    (copied / 'val' / '000002.jpg').write_bytes(content)
    message = error(copied)
    assert message.startswith(f'{copied / "val"}: ')
    assert expected in message


def test_image_is_a_folder(copied, error):
    (copied / 'val' / '000002.jpg').unlink()
    (copied / 'val' / '000002.jpg').mkdir()
    assert "'000002.jpg' is missing" in error(copied)


@pytest.mark.parametrize('size', [(48, 32), (96, 63), (97, 64), (64, 96)])
def test_image_has_another_size(copied, error, size):
    path = copied / 'train' / '000003.jpg'
    Image.open(path).resize(size).save(path)
    found = f'{size[0]}x{size[1]}'
    expected = f"'000003.jpg' has {found} pixels, but train.json states 96x64"
    assert expected in error(copied)


@pytest.mark.parametrize('suffix', ['jpg', 'png'])
def test_size_is_that_after_exif_rotation(copied, edit, error, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.open(copied / 'train' / '000001.jpg')
    name = f'turned.{suffix}'
    picture.save(copied / 'train' / name, exif=exif)
    edit('train', lambda d: d['images'][0].update(file_name=name))
    # What a detector is fed decides which size is right.
    height, width = cv2.imread(str(copied / 'train' / name)).shape[:2]
    if (width, height) == (96, 64):
        pytest.skip(f'this OpenCV does not turn {suffix} images')
    assert 'has 64x96 pixels, but train.json states 96x64' in error(copied)
    edit('train', lambda data: data['images'][0].update(
        width=width, height=height))
    read_coco_folder(copied)


def test_images_in_subfolders(copied, edit):
    (copied / 'train' / 'day 1').mkdir()
    (copied / 'train' / '000001.jpg').rename(
        copied / 'train' / 'day 1' / 'ä.jpg')
    edit('train', lambda data: data['images'][0].update(
        file_name='day 1/ä.jpg'))
    read_coco_folder(copied)


def test_median_size(copied, edit):
    for split in ('train', 'val'):
        edit(split, lambda data: data.update(images=[
            dict(i, width=10 * i['id'], height=7) for i in data['images']]))
        for i, path in enumerate(sorted((copied / split).iterdir()), 1):
            Image.new('RGB', (10 * i, 7)).save(path)

    def shrink(data):
        for annotation in data['annotations']:
            annotation['bbox'] = [0, 0, 5, 5]

    edit('both', shrink)
    folder = read_coco_folder(copied)
    assert folder.train.median_size == (35, 7)
    assert folder.val.median_size == (30, 7)


@pytest.mark.parametrize('segmentation, is_mask', [
    ([[0, 0, 9, 0, 9, 9]], True),
    ([[0, 0, 9, 0], [0, 0, 9, 0, 9, 9]], True),
    ({'size': [64, 96], 'counts': [6144]}, True),
    ([], False),
    (None, False),
    ([[0, 0, 9, 0]], False),
    ([[0, 0, 9, 0, 9, 9, 9]], False),
    ([[0, 0, 9, 0, 9, 'x']], False),
    ({'size': [64, 96]}, False),
    ({'size': [96, 64], 'counts': [6144]}, False),
    ({'size': [64, 96], 'counts': 6144}, False),
    ('oops', False),
], ids=str)
def test_masks(copied, edit, segmentation, is_mask):
    edit('train', lambda data: data['annotations'][0].update(
        segmentation=segmentation))
    folder = read_coco_folder(copied)
    assert folder.train.has_masks == is_mask
    assert folder.has_masks == is_mask
    assert folder.val.has_masks
    if not is_mask:
        count = folder.train.num_boxes
        assert folder.warnings == (
            f'{_file(copied, "train")}: 1 of {count} boxes have no valid '
            'segmentation; masks cannot be trained on',
        )


def test_crowds_need_masks_too(copied, edit):
    edit('val', lambda data: data['annotations'].append(
        {**data['annotations'][0], 'id': 999, 'iscrowd': 1,
         'segmentation': []}))
    folder = read_coco_folder(copied)
    assert not folder.val.has_masks
    assert '1 of' in folder.warnings[0]


def test_no_masks_at_all(copied, edit):
    def strip(data):
        for annotation in data['annotations']:
            annotation.pop('segmentation')

    edit('both', strip)
    folder = read_coco_folder(copied)
    assert not folder.has_masks
    assert folder.warnings == ()


@pytest.mark.parametrize('change, counted, expected', [
    ({'bbox': [5, 5, 0.9, 8]}, 0, 'annotation 500 is dropped by MMDet'),
    ({'bbox': [200, 5, 8, 8]}, 0, 'annotation 500 is dropped by MMDet'),
    ({'bbox': [5, -9, 8, 8]}, 0, 'annotation 500 is dropped by MMDet'),
    ({'area': 0}, 0, 'annotation 500 is dropped by MMDet'),
    ({'ignore': True}, 0, 'annotation 500 is dropped by MMDet'),
    ({'bbox': [5, 5, 8, 70]}, 1, 'annotation 500 is more than a pixel beyo'),
    ({'bbox': [-3, 5, 8, 8]}, 1, 'annotation 500 is more than a pixel beyo'),
    ({'bbox': [-0.5, 5, 97, 8]}, 1, None),
    ({'id': 0}, 1, 'annotation 0 never counts as found'),
], ids=str)
def test_warnings(copied, edit, change, counted, expected):
    before = read_coco_folder(copied).val.num_boxes
    edit('val', lambda data: data['annotations'].append({
        **data['annotations'][0], 'id': 500, 'bbox': [5, 5, 8, 8], **change}))
    folder = read_coco_folder(copied)
    assert folder.val.num_boxes == before + counted
    assert folder.train.warnings == ()
    if expected is None:
        assert folder.warnings == ()
    else:
        (warning,) = folder.warnings
        assert warning.startswith(f'{_file(copied, "val")}: {expected}')


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(choice=st.randoms(use_true_random=False), value=JSON)
def test_any_damage_is_accepted_or_told(made, copied, choice, value):
    data = json.loads(_file(made, 'train').read_text())
    damaged = copy.deepcopy(data)
    node = damaged
    while True:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        key = choice.choice(list(keys))
        inner = node[key]
        if not isinstance(inner, (dict, list)) or not inner:
            break
        if choice.random() < 0.2:
            break
        node = inner
    node[key] = value
    _file(copied, 'train').write_text(json.dumps(damaged))
    try:
        read_coco_folder(copied)
    except DataError as error:
        assert '\n' not in str(error)
