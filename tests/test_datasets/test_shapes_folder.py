import hashlib

import cv2
import numpy as np
import pytest

from shiftwise_mm.datasets import make_shapes_dataset, shapes


def _digests(root):
    return {
        str(path.relative_to(root)): hashlib.md5(path.read_bytes()).digest()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


@pytest.mark.parametrize('fails_by', ['raising', 'returning False', 'Ctrl-C'])
def test_an_interrupted_run_leaves_nothing(
    tmp_path, monkeypatch, fails_by, small
):
    write, count = cv2.imwrite, 0

    def imwrite(*args):
        nonlocal count
        count += 1
        if count <= 7:
            return write(*args)
        if fails_by == 'raising':
            raise cv2.error('disk full')
        if fails_by == 'Ctrl-C':
            raise KeyboardInterrupt
        return False

    monkeypatch.setattr(cv2, 'imwrite', imwrite)
    with pytest.raises((cv2.error, OSError, KeyboardInterrupt)):
        make_shapes_dataset(tmp_path / 's', **small)
    assert count == 8
    assert list(tmp_path.iterdir()) == []


def test_an_existing_one_is_reused(copied, monkeypatch, small):
    before = _digests(copied)
    monkeypatch.setattr(cv2, 'imwrite', None)
    # Other integer types and a list mean the same arguments.
    same = {**small, 'image_size': [96, 64], 'seed': np.int64(3)}
    summary = make_shapes_dataset(str(copied), **same)
    assert summary.reused
    assert summary.root == copied
    assert _digests(copied) == before


def test_an_empty_folder_is_filled(tmp_path, small):
    (tmp_path / 's').mkdir()
    assert not make_shapes_dataset(tmp_path / 's', **small).reused
    assert make_shapes_dataset(tmp_path / 's', **small).reused


@pytest.mark.parametrize('rival', ['same', 'other'])
def test_a_faster_rival_process(made, tmp_path, monkeypatch, rival, small):
    root = tmp_path / 's'
    write_all = shapes._write_all

    def slowly(stage, arguments):
        write_all(stage, arguments)
        monkeypatch.setattr(shapes, '_write_all', write_all)
        seed = small['seed'] if rival == 'same' else 99
        make_shapes_dataset(root, **{**small, 'seed': seed})

    monkeypatch.setattr(shapes, '_write_all', slowly)
    if rival == 'same':
        assert make_shapes_dataset(root, **small).reused
        assert _digests(root) == _digests(made)
    else:
        with pytest.raises(FileExistsError, match='"?seed"?.*99'):
            make_shapes_dataset(root, **small)
    assert list(tmp_path.iterdir()) == [root]


@pytest.mark.parametrize(
    'changed',
    [{'num_train': 7}, {'num_val': 6}, {'image_size': (64, 96)}, {'seed': 0}],
    ids=lambda changed: next(iter(changed)),
)
def test_other_arguments_are_refused(copied, changed, small):
    before = _digests(copied)
    with pytest.raises(FileExistsError, match='choose another root'):
        make_shapes_dataset(copied, **{**small, **changed})
    assert _digests(copied) == before


def test_another_generator_version_is_refused(copied, monkeypatch, small):
    monkeypatch.setattr(shapes, 'GENERATOR_VERSION', 10**6)
    with pytest.raises(FileExistsError, match="'version': 1000000"):
        make_shapes_dataset(copied, **small)


@pytest.mark.parametrize('name', [
    'annotations/val.json', 'train/000006.jpg', 'semantic/val/000001.png',
])
@pytest.mark.parametrize('how', ['gone', 'emptied'])
def test_a_damaged_one_is_refused(copied, name, how, small):
    if how == 'gone':
        (copied / name).unlink()
    else:
        (copied / name).write_bytes(b'')
    before = _digests(copied)
    with pytest.raises(FileExistsError, match=f'{name} is missing or was'):
        make_shapes_dataset(copied, **small)
    assert _digests(copied) == before


@pytest.mark.parametrize('stamp', [
    None, '', '[]', '{}', '{"generator": "another"}', '\ufeff{',
])
def test_a_folder_of_something_else_is_refused(tmp_path, stamp, small):
    root = tmp_path / 's'
    root.mkdir()
    (root / 'precious.txt').write_text('keep me')
    if stamp is not None:
        (root / 'dataset.json').write_text(stamp, encoding='utf-8')
    before = _digests(root)
    with pytest.raises(FileExistsError, match='something other'):
        make_shapes_dataset(root, **small)
    assert _digests(root) == before
    assert list(tmp_path.iterdir()) == [root]


def test_a_file_is_refused(tmp_path, small):
    (tmp_path / 's').write_text('keep me')
    with pytest.raises(FileExistsError, match='is not a folder'):
        make_shapes_dataset(tmp_path / 's', **small)
    assert (tmp_path / 's').read_text() == 'keep me'


@pytest.mark.parametrize('name, value, error, message', [
    ('num_train', 3, ValueError, 'num_train must be at least 4.* 3 was'),
    ('num_val', -1, ValueError, 'num_val must be at least 4.* -1 was'),
    ('num_train', 6.0, TypeError, 'num_train must be an integer.* 6.0 was'),
    ('num_val', True, TypeError, 'num_val must be an integer.* True was'),
    ('seed', -2, ValueError, 'seed must be at least 0.* -2 was'),
    ('seed', None, TypeError, 'seed must be an integer.* None was'),
    ('image_size', 320, TypeError, r'image_size must be a pair.* 320 was'),
    ('image_size', (96,), TypeError, r'image_size must be a pair'),
    ('image_size', (96, 63), ValueError, r'image_size\[1\] must be .* 64'),
    ('image_size', (96., 64), TypeError, r'image_size\[0\] must be an int'),
    ('image_size', (5000, 64), ValueError, 'image_size must be at most 4096'),
    ('root', 7, TypeError, 'root must be a path, but int was given'),
    ('root', None, TypeError, 'root must be a path, but NoneType was given'),
])
def test_bad_arguments(tmp_path, name, value, error, message, small):
    arguments = {'root': tmp_path / 's', **small, name: value}
    with pytest.raises(error, match=message):
        make_shapes_dataset(arguments.pop('root'), **arguments)
    assert list(tmp_path.iterdir()) == []
