"""What has to be imported or run to see whether it works.

Run in a process of their own (:mod:`.process`): a broken library may end it.
"""
from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from functools import partial

from shiftwise_mm.stack import installed_versions

from .check import ABSENT, BROKEN, OK, Check, broken
from .environment import has_module
from .mends import install

__all__ = ['PROBES']

# What lacks without them, of those that not everyone installs.
_OPTIONAL = {
    'mmcv': 'detectors and segmentors',
    'mmdet': 'detectors, and the demo of one',
    'mmseg': 'segmentors, and the demo of one',
    'taichi': 'the forms fused and shift by its kernels; strip and the '
              'reference remain',
    'onnx': 'the export to ONNX',
    'onnxruntime': 'running what was exported to ONNX',
}


def _imported(module: str, *parts: str) -> Iterator[Check]:
    """Whether a package and what is used of it can be imported."""
    if not has_module(module):
        if module in _OPTIONAL:
            yield Check(module, ABSENT,
                        f'not installed, needed for {_OPTIONAL[module]}',
                        install(module))
        else:
            yield Check(module, BROKEN, 'not installed', install(module))
        return
    try:
        for part in (module, *parts):
            importlib.import_module(part)
    # An import runs what it likes.
    except Exception as error:
        yield broken(module, error, module)
    else:
        yield Check(module, OK)


def _torch() -> Iterator[Check]:
    yield from _imported('torch')


def _numpy() -> Iterator[Check]:
    yield from _imported('numpy')


def _mmengine() -> Iterator[Check]:
    *found, last = _imported('mmengine', 'mmengine.runner')
    yield from found
    yield last
    if last.status != OK:
        return
    from mmengine.utils import get_installed_path
    try:
        get_installed_path('mmengine')
    except Exception as error:
        yield broken('configs of packages', error, 'mmengine')
    else:
        yield Check('configs of packages', OK,
                    "mmengine finds what _base_ = 'mmdet::...' names")


def _mmcv() -> Iterator[Check]:
    """Its compiled ops, which mmdet and mmseg import."""
    found, = _imported('mmcv')
    needed = has_module('mmdet') or has_module('mmseg')
    if found.status == ABSENT and needed:
        found = Check('mmcv', BROKEN, 'not installed, and mmdet and mmseg '
                      'import it', found.mend)
    yield found
    if found.status != OK:
        return
    if not has_module('mmcv._ext'):
        lite = 'mmcv-lite' in installed_versions()
        yield Check('mmcv ops', BROKEN if needed else ABSENT,
                    'mmcv is installed without its compiled ops'
                    + (', as mmcv-lite' if lite else ''),
                    ('pip uninstall -y mmcv-lite && ' if lite else '')
                    + install('mmcv'))
        return
    try:
        import torch
        from mmcv.ops import nms
        boxes = torch.tensor([[0., 0., 9., 9.], [0., 0., 9., 8.],
                              [20., 20., 30., 30.]])
        kept = nms(boxes, torch.tensor([.9, .8, .7]), .5)[1].tolist()
    except Exception as error:
        yield broken('mmcv ops', error, 'mmcv')
        return
    yield Check('mmcv ops', OK, 'loaded, and nms keeps what it should') \
        if kept == [0, 2] else Check(
            'mmcv ops', BROKEN, f'nms kept {kept} instead of [0, 2]',
            install('mmcv'))


def _library(module: str) -> Iterator[Check]:
    """mmdet or mmseg, with all that they register."""
    found, = _imported(module)
    if found.status == OK:
        try:
            importlib.import_module(f'{module}.utils').register_all_modules()
        except Exception as error:
            found = broken(module, error, module)
        else:
            found = Check(module, OK, 'all its modules can be imported')
    yield found


def _mmdet() -> Iterator[Check]:
    yield from _library('mmdet')


def _mmseg() -> Iterator[Check]:
    yield from _library('mmseg')


def _package() -> Iterator[Check]:
    """This one: its types are found by their names, its configs by theirs."""
    try:
        import shiftwise_mm
        from shiftwise_mm.config_paths import configs_of
        shiftwise_mm.register()
        from shiftwise_mm.registry import MODELS
        if MODELS.get('shiftwise_mm.ShiftWiseNet') is None:
            importlib.import_module('shiftwise_mm.models')  # says why
    except Exception as error:
        yield broken('shiftwise_mm', error, 'shiftwise_mm')
        return
    yield Check('shiftwise_mm', OK, 'its types are registered')
    try:
        configs_of('shiftwise_mm')
    except FileNotFoundError as error:
        yield Check('shiftwise_mm configs', BROKEN,
                    f'{error}; an editable install has none',
                    install('shiftwise_mm'))
    else:
        yield Check('shiftwise_mm configs', OK,
                    "found by _base_ = 'shiftwise_mm::...'")


def _taichi() -> Iterator[Check]:
    found, = _imported('taichi')
    if found.status == OK:
        try:
            import taichi
            import torch

            from shiftwise_mm.kernels import runtime
            runtime.ensure(torch.device('cpu'))
            arch = taichi.lang.impl.current_cfg().arch
            found = Check('taichi', OK, 'arch '
                          f'{taichi._lib.core.arch_name(arch)}')
        except Exception as error:
            found = broken('taichi', error, 'taichi')
    yield found


def _onnx() -> Iterator[Check]:
    yield from _imported('onnx')


def _onnxruntime() -> Iterator[Check]:
    yield from _imported('onnxruntime')


def _operators(full: bool = False) -> Iterator[Check]:
    try:
        from .self_test import self_test
    except Exception as error:
        yield broken('operators', error, 'shiftwise_mm')
        return
    yield from self_test(full)


PROBES: dict[str, Callable[[], Iterator[Check]]] = {
    'torch': _torch,
    'numpy': _numpy,
    'mmengine': _mmengine,
    'mmcv': _mmcv,
    'mmdet': _mmdet,
    'mmseg': _mmseg,
    'shiftwise_mm': _package,
    'taichi': _taichi,
    'onnx': _onnx,
    'onnxruntime': _onnxruntime,
    'operators': _operators,
    'operators, full': partial(_operators, full=True),
}
"""By name; each yields what it has found."""
