"""Configs inside installed packages, as ``'mmdet::...'`` names them."""
from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

__all__ = ['config_path', 'configs_of']


def configs_of(package: str) -> Path:
    """Folder of the configs inside an installed package.

    Args:
        package (str): Import name, e.g. ``'mmdet'``; it is not imported.

    Raises:
        FileNotFoundError: If it is not installed or holds no configs.
    """
    spec = find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f'no package {package!r} is installed')
    folder = Path(spec.submodule_search_locations[0], '.mim', 'configs')
    if not folder.is_dir():
        raise FileNotFoundError(f'the package {package} holds no configs: '
                                f'there is no folder {folder}')
    return folder


def config_path(config: str) -> str:
    """Path of a config given as users give them.

    Args:
        config (str): A path, or ``'PACKAGE::FOLDER/FILE'`` for a config
            inside an installed package: ``'mmdet::...'``, ``'mmseg::...'``,
            ``'shiftwise_mm::...'``.

    Returns:
        str: The path of the file inside the package; any other path as it
        is, whether it exists or not.

    Raises:
        FileNotFoundError: If the package is not installed, or holds no such
            config.
    """
    package, separator, name = config.partition('::')
    if not separator:
        return config
    path = configs_of(package) / name
    if not path.is_file():
        raise FileNotFoundError(f'there is no config {config}: no file {path}')
    return str(path)
