import math

import pytest


def _file(root, split):
    return root / 'annotations' / f'{split}.json'


def test_root_is_missing(tmp_path, error):
    message = error(tmp_path / 'nowhere')
    assert 'does not exist; expected are annotations/train.json' in message


def test_root_is_a_file(tmp_path, error):
    (tmp_path / 'root').write_text('')
    assert 'is not a folder' in error(tmp_path / 'root')


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize('content, expected', [
    (None, 'does not exist; expected are annotations/train.json'),
    (b'', 'is empty; a JSON object with "images", "annotations"'),
    (b' \n', 'is empty'),
    (b'{"images": [],\n "annotations": [}', 'at line 2, column 18'),
    (b'{"images": [1', 'at line 1, column 14; was it cut off'),
    (b'\xff\xfe{}', 'byte 0 is not UTF-8'),
    (b'\xef\xbb\xbf{}', 'BOM'),
    (b'[' * 10**5, 'is not valid JSON'),
    (b'1' * 5000, 'is not valid JSON'),
    (b'[]', 'holds a JSON list; an object with "images"'),
    (b'{}', 'has no "images", "annotations", "categories"; an object'),
    (b'{"images": [1], "annotations": [1]}', 'has no "categories"; an'),
], ids=[
    'missing', '0 bytes', 'blank', 'malformed', 'cut off', 'utf-16', 'bom',
    'too deep', 'huge number', 'list', 'no keys', 'no categories',
])
def test_annotation_file(copied, error, split, content, expected):
    if content is None:
        _file(copied, split).unlink()
    else:
        _file(copied, split).write_bytes(content)
    message = error(copied)
    assert message.startswith(str(_file(copied, split)))
    assert expected in message


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize('key', ['images', 'annotations', 'categories'])
@pytest.mark.parametrize('value', [[], {}, None], ids=repr)
def test_list_without_content(copied, edit, error, split, key, value):
    edit(split, lambda data: data.update({key: value}))
    assert f'{split}.json has no {key}: ' in error(copied)


BAD_FIELDS = [
    ('images', 'id', None, 'an integer (or a name)'),
    ('images', 'id', [1], 'an integer (or a name)'),
    ('images', 'file_name', '', 'a file name that is not empty'),
    ('images', 'width', 0, 'a positive number of pixels'),
    ('images', 'height', '64', 'a positive number of pixels'),
    ('categories', 'id', '1', 'an integer'),
    ('categories', 'id', True, 'an integer'),
    ('categories', 'name', 5, 'a name that is not empty'),
    ('annotations', 'id', 1.0, 'an integer'),
    ('annotations', 'image_id', {}, 'the id of an image'),
    ('annotations', 'category_id', [], 'the id of a category'),
    ('annotations', 'area', '12', 'a finite number'),
    ('annotations', 'area', math.inf, 'a finite number'),
    ('annotations', 'iscrowd', 2, '0, or 1 for a crowd'),
    ('annotations', 'bbox', [1, 2, 3], 'four finite numbers'),
    ('annotations', 'bbox', [1, 2, 3, 4, 5], 'four finite numbers'),
    ('annotations', 'bbox', [1, 2, 3, '4'], 'four finite numbers'),
    ('annotations', 'bbox', [1, 2, 3, math.nan], 'four finite numbers'),
    ('annotations', 'bbox', [-math.inf, 2, 3, 4], 'four finite numbers'),
    ('annotations', 'bbox', [10**400, 2, 3, 4], 'four finite numbers'),
    ('annotations', 'bbox', [1, 2, 0, 4], 'width and height positive'),
    ('annotations', 'bbox', [1, 2, 3, -4], 'width and height positive'),
    ('annotations', 'bbox', {'x': 1}, 'four finite numbers'),
]


@pytest.mark.parametrize(
    'part, key, value, expected', BAD_FIELDS,
    ids=[f'{part}-{key}-{str(value)[:12]}' for part, key, value, _ in
         BAD_FIELDS],
)
def test_bad_field(copied, edit, error, part, key, value, expected):
    edit('train', lambda data: data[part][1].update({key: value}))
    message = error(copied)
    assert f'{_file(copied, "train")}: ' in message
    assert f'{key!r} {repr(value)[:20]}' in message
    assert expected in message
    if key != 'id':
        assert 'with id 2 ' in message


@pytest.mark.parametrize('part, key', [
    (part, key)
    for part, keys in {
        'images': ['id', 'file_name', 'width', 'height'],
        'categories': ['id', 'name'],
        'annotations': [
            'id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd',
        ],
    }.items()
    for key in keys
])
def test_missing_field(copied, edit, error, part, key):
    edit('val', lambda data: data[part][1].pop(key))
    message = error(copied)
    assert f'{_file(copied, "val")}: ' in message
    assert f'has no {key!r}; it must be' in message


@pytest.mark.parametrize('part', ['images', 'categories', 'annotations'])
def test_entry_is_not_an_object(copied, edit, error, part):
    edit('train', lambda data: data[part].insert(1, 'oops'))
    assert "number 1 is 'oops'; an object is expected" in error(copied)


@pytest.mark.parametrize('part, expected', [
    ('images', 'train.json: image id 1 occurs more than once'),
    ('annotations', 'train.json: annotation id 1 occurs more than once'),
    ('categories', 'train.json: category id 1 occurs more than once'),
])
def test_duplicate_id(copied, edit, error, part, expected):
    edit('train', lambda data: data[part][2].update(id=1))
    assert expected in error(copied)


def test_duplicate_category_name(copied, edit, error):
    edit('both', lambda data: data['categories'][2].update(name='ring'))
    assert "category name 'ring' occurs more than once" in error(copied)


@pytest.mark.parametrize('key, value, part', [
    ('image_id', 99, 'images'),
    ('image_id', '1', 'images'),
    ('category_id', 6, 'categories'),
])
def test_unknown_reference(copied, edit, error, key, value, part):
    edit('val', lambda d: d['annotations'][0].update({key: value}))
    expected = f'annotation with id 1 has {key!r} {value!r}, which no entry '
    message = error(copied)
    assert f'val.json: {expected}of "{part}" has' in message


def _rename(data):
    data['categories'][3]['name'] = 'kreis'


def _reverse(data):
    data['categories'].reverse()


def _add(data):
    data['categories'].append({'id': 9, 'name': 'cross'})


def _renumber(data):
    data['categories'][3]['id'] = 7
    for annotation in data['annotations']:
        if annotation['category_id'] == 4:
            annotation['category_id'] = 7


@pytest.mark.parametrize('change, expected', [
    (_rename, "it has id 4 'kreis' where id 4 'ring' is expected"),
    (_reverse, 'it lists the same categories in another order'),
    (_add, "it has 5 categories, not 4, odd is id 9 'cross'"),
    (_renumber, "it has id 7 'ring' where id 4 'ring' is expected"),
])
def test_categories_differ(copied, edit, error, change, expected):
    edit('val', change)
    message = error(copied)
    assert message.startswith(f'{_file(copied, "val")}: its categories differ')
    assert expected in message


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize('how', ['removed', 'crowds', 'ignored', 'tiny'])
def test_category_without_a_box(copied, edit, error, split, how):
    def change(data):
        for annotation in data['annotations']:
            if annotation['category_id'] == 3:
                annotation.update({
                    'removed': {'category_id': 1},
                    'crowds': {'iscrowd': 1},
                    'ignored': {'ignore': 1},
                    'tiny': {'bbox': [1, 1, 0.5, 9]},
                }[how])

    edit(split, change)
    message = error(copied)
    expected = "category 'triangle' is without a usable box"
    assert f'{_file(copied, split)}: {expected}' in message


def test_several_categories_without_a_box(copied, edit, error):
    edit('both', _add)
    edit('both', lambda data: data['categories'].append(
        {'id': 10, 'name': 'cube'}))
    assert "category 'cross' and 1 more are without" in error(copied)
