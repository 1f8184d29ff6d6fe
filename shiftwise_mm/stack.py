"""The two stacks of OpenMMLab, and all that differs between them.

The maintained forks (``onedl-...``) keep the import names of the originals,
so an environment holds either the one or the other. What is installed is read
from the metadata of distributions; nothing is imported for it.
"""
from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib import metadata
from types import MappingProxyType, ModuleType
from typing import NamedTuple

__all__ = [
    'ONEDL', 'STOCK', 'Stack', 'close_checkpoint_fallback', 'extra_of',
    'find_stack', 'import_optional', 'installed_versions',
    'register_packages'
]


class Stack(NamedTuple):
    """One stack of OpenMMLab.

    Attributes:
        name: ``'stock'`` or ``'onedl'``.
        distributions: What pip calls a package, by what Python calls it.
        extras: The extra of ``shiftwise_mm`` that brings a package.
    """

    name: str
    distributions: Mapping[str, str]
    extras: Mapping[str, str]


STOCK = Stack(
    'stock',
    MappingProxyType(dict(mmengine='mmengine', mmcv='mmcv', mmdet='mmdet',
                          mmseg='mmsegmentation')),
    MappingProxyType(dict(mmengine='mmengine', mmcv='detection',
                          mmdet='detection', mmseg='segmentation',
                          pycocotools='detection')))
"""OpenMMLab's own releases."""
ONEDL = Stack(
    'onedl',
    MappingProxyType(dict(mmengine='onedl-mmengine', mmcv='onedl-mmcv',
                          mmdet='onedl-mmdetection',
                          mmseg='onedl-mmsegmentation')),
    MappingProxyType(dict(mmengine='onedl', mmcv='onedl-detection',
                          mmdet='onedl-detection',
                          mmseg='onedl-segmentation',
                          pycocotools='onedl-detection')))
"""The maintained forks."""
# Extras that are the same with either stack.
_OTHER_EXTRAS = dict(taichi='taichi', onnx='export', onnxruntime='export')


def installed_versions() -> dict[str, str]:
    """Versions of OpenMMLab's distributions, by the names that pip has."""
    found = {}
    for stack in (STOCK, ONEDL):
        for name in stack.distributions.values():
            try:
                found[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
    return found


def find_stack() -> Stack:
    """The stack that is installed; the stock one where there is none.

    Raises:
        RuntimeError: If distributions of both are installed: they overwrite
            each other's files.
    """
    found = installed_versions()
    forks = [name for name in ONEDL.distributions.values() if name in found]
    stock = [name for name in STOCK.distributions.values() if name in found]
    if forks and stock:
        raise RuntimeError(
            f'OpenMMLab is installed twice: {", ".join(stock)} and '
            f'{", ".join(forks)} have the same files; uninstall all of them '
            '(pip uninstall), then install either')
    return ONEDL if forks else STOCK


def extra_of(package: str) -> str | None:
    """The extra of ``shiftwise_mm`` that brings a package, or None.

    Raises:
        RuntimeError: If both stacks are installed.
    """
    return _OTHER_EXTRAS.get(package) or find_stack().extras.get(package)


def import_optional(module: str, user: str) -> ModuleType:
    """Imports what not every installation of ``shiftwise_mm`` has.

    Args:
        module (str): Its name, with dots.
        user (str): What needs it, for the message.

    Raises:
        ModuleNotFoundError: If it is not installed; says how to get it.
        ImportError: If it is, and fails.
    """
    package = module.partition('.')[0]
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        extra = extra_of(package)
        command = f"'shiftwise_mm[{extra}]'" if extra else package
        if package in ONEDL.extras and not installed_versions():
            command += (', or with the maintained forks '
                        f"'shiftwise_mm[{ONEDL.extras[package]}]'")
        raise ModuleNotFoundError(
            f'{user} needs {package}, which is not installed: pip install '
            f'{command}', name=package) from None
    return importlib.import_module(module)


def register_packages() -> None:
    """Tells mmengine the packages whose configs are bases, ``'mmseg::...'``.

    It knows mmsegmentation by the name of its distribution only, which is
    another on the forks; there ``'mmseg::...'`` would count as missing.
    """
    known = import_optional('mmengine.config.utils',
                            'shiftwise_mm').MODULE2PACKAGE
    installed = installed_versions()
    for package, name in ONEDL.distributions.items():
        # Others, mmengine itself among them, it takes for broken libraries.
        if package in known and name in installed:
            known[package] = name
    known['shiftwise_mm'] = 'shiftwise_mm'


def close_checkpoint_fallback() -> None:
    """Makes mmengine load checkpoints with ``weights_only=True`` alone.

    The stock one does, under torch 2.6 and later. The fork allows the real
    ``getattr``, with which a file reaches any function, and where a file is
    refused all the same loads it without ``weights_only``: its function of
    that is replaced.
    """
    from mmengine.runner import checkpoint
    if hasattr(checkpoint, '_safe_torch_load'):
        checkpoint._safe_torch_load = _load_weights_only


def _load_weights_only(file, map_location=None, weights_only=None):
    """``torch.load`` with ``weights_only=True``, whatever is asked for."""
    import torch
    return torch.load(file, map_location=map_location, weights_only=True)
