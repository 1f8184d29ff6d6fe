"""The shipped configs: each is read and built once for all tests."""
from __future__ import annotations

import copy
import functools
from importlib import import_module
from pprint import pformat

import torch
from helpers import ROOT
from mmengine.config import Config


@functools.cache
def _read(name: str) -> Config:
    return Config.fromfile(ROOT / 'configs' / name)


def read(name: str) -> Config:
    """A copy of the config of this name below ``configs/``."""
    return copy.deepcopy(_read(name))


def text_of(cfg: Config) -> str:
    """All that is in it, as ``pretty_text`` but not formatted as code."""
    return pformat(cfg.to_dict())


@functools.cache
def built(name: str) -> list[torch.nn.Module]:
    """Its model without values, for all tests: none may change it.

    By the registry of the library, as its own tools do. mmpretrain does not
    import here: backbone and head of a classifier of it, each alone.
    """
    cfg = read(name)
    library, parts = cfg.get('default_scope', 'mmengine'), [cfg.model]
    if library == 'mmpretrain':
        library, parts = 'mmengine', [cfg.model.backbone, cfg.model.head]
    if library != 'mmengine':
        import_module(f'{library}.utils').register_all_modules()
    registry = import_module(f'{library}.registry').MODELS
    # Swin asks for values while it is built, which meta tensors lack.
    with torch.device('cpu' if 'swin-' in name else 'meta'):
        return [registry.build(part).to('meta') for part in parts]
