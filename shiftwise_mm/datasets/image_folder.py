"""Images in one folder a class, such as ImageNet's validation half."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset

from shiftwise_mm.registry import DATASETS

from ._coco_checks import DataError, first_of

__all__ = ['ImageFolder']

_SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff',
             '.webp')
_LAYOUT = 'expected is one folder a class with its images in it'


@DATASETS.register_module()
class ImageFolder(BaseDataset):
    """Images labelled by the folder that they are in.

    The rules are those of torchvision's ``ImageFolder``, by which the
    published networks were trained: the folders right under the root are the
    classes, numbered in the order of their names; images lie in them at any
    depth (jpg, jpeg, png, ppm, bmp, pgm, tif, tiff, webp).

    Args:
        data_root (str): The folder of the class folders.
        **kwargs: As of ``BaseDataset``: ``pipeline``, ``test_mode``,
            ``indices``, ... With ``metainfo=dict(classes=...)`` (the names of
            all classes, or a file with one name a line) labels count in that
            order and folders may be missing.

    Each item holds ``img_path`` (str) and ``gt_label`` (int).

    Raises:
        DataError: If the folder does not hold what is expected, or, while
            loading, an image cannot be read; the message is one line.
    """

    def __init__(self, data_root: str | os.PathLike[str],
                 **kwargs: Any) -> None:
        super().__init__(
            data_root=os.fspath(data_root), data_prefix={}, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Finds the images; see the class."""
        root = Path(self.data_root)
        if not root.is_dir():
            state = 'is not a folder' if root.exists() else 'does not exist'
            raise DataError(f'{root} {state}; {_LAYOUT}')
        names = sorted(e.name for e in os.scandir(root) if e.is_dir())
        if not names:
            raise DataError(f'{root} holds no folders; {_LAYOUT}')
        classes = tuple(self._metainfo.setdefault('classes', names))
        self._metainfo['classes'] = classes
        unknown = [name for name in names if name not in classes]
        if unknown:
            raise DataError(
                f'{root}: {first_of("folder", unknown)} not among the '
                f'{len(classes)} classes given')
        data = []
        for name in names:
            label, files = classes.index(name), _images(root / name)
            if not files:
                raise DataError(f'{root / name} holds no images '
                                f'({", ".join(_SUFFIXES)}); {_LAYOUT}')
            data += [dict(img_path=file, gt_label=label) for file in files]
        return data

    def prepare_data(self, idx: int) -> Any:
        """The item behind the pipeline; names an image that is broken."""
        try:
            return super().prepare_data(idx)
        # Pillow raises SyntaxError on broken PNG files.
        except (OSError, SyntaxError) as error:
            path = self.get_data_info(idx)['img_path']
            raise DataError(f'{path} cannot be read as an image '
                            f'({type(error).__name__})') from error


def _images(folder: Path) -> list[str]:
    return sorted(
        os.path.join(path, file)
        for path, _, files in os.walk(folder, followlinks=True)
        for file in files if file.lower().endswith(_SUFFIXES))
