import json
import shutil

import pytest

from shiftwise_mm.datasets import (
    DataError,
    make_shapes_dataset,
    read_coco_folder,
)


@pytest.fixture(scope='session')
def small():
    """Arguments of `made`."""
    return {
        'num_train': 6, 'num_val': 5, 'image_size': (96, 64), 'seed': 3,
    }


@pytest.fixture(scope='session')
def made(small, tmp_path_factory):
    """A small shapes data set that no test changes."""
    root = tmp_path_factory.mktemp('made') / 'shapes'
    make_shapes_dataset(root, **small)
    return root


@pytest.fixture
def copied(made, tmp_path):
    """A copy of it for a test to change."""
    root = tmp_path / 'copied'
    shutil.copytree(made, root)
    return root


@pytest.fixture
def edit(copied):
    """Applies a function to the annotations of 'train', 'val' or 'both'."""

    def apply(split, change):
        for name in ('train', 'val') if split == 'both' else (split,):
            path = copied / 'annotations' / f'{name}.json'
            data = json.loads(path.read_text())
            change(data)
            path.write_text(json.dumps(data))

    return apply


@pytest.fixture
def error():
    """The message for a data set that must be refused."""

    def read(root):
        with pytest.raises(DataError) as caught:
            read_coco_folder(root)
        message = str(caught.value)
        assert '\n' not in message
        assert str(root) in message
        return message

    return read
