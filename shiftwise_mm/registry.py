"""Registries of scope ``shiftwise_mm``, children of mmengine's.

``type='shiftwise_mm.X'`` in any OpenMMLab config makes mmengine import this
file, which must stay light: an ImportError here is only logged at debug
level. What is registered is imported when first looked up.
"""
from importlib import import_module

from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import (
    OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_CONSTRUCTORS,
)
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import PARAM_SCHEDULERS as MMENGINE_SCHEDULERS
from mmengine.registry import TASK_UTILS as MMENGINE_TASK_UTILS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import DefaultScope, Registry

__all__ = [
    'DATASETS', 'DATA_SAMPLERS', 'HOOKS', 'LOOPS', 'METRICS', 'MODELS',
    'OPTIM_WRAPPERS', 'OPTIM_WRAPPER_CONSTRUCTORS', 'PARAM_SCHEDULERS',
    'TASK_UTILS', 'TRANSFORMS'
]


class ScopedRegistry(Registry):
    """Finds what the library around it has registered, too.

    To mmengine all that a config inherits by ``_base_ = 'shiftwise_mm::...'``
    is of the scope ``shiftwise_mm``. Its types without a prefix are those of
    the library that the config is for: of the default scope there was before
    that one. Where there was none, of those libraries that are imported.
    """

    def get(self, key: str):
        self.import_from_location()
        if isinstance(key, str) and '.' not in key and \
                key not in self.module_dict:
            # Before mmengine's own: LoadAnnotations is in both.
            for scope in _outer_scopes():
                library = self.root._search_child(scope)
                found = None if library is None else library.get(key)
                if found is not None:
                    return found
        return super().get(key)


def _outer_scopes() -> list[str]:
    """Scopes around ours, the innermost first; else all that may be."""
    # mmengine tells the innermost alone.
    scopes = [instance.scope_name
              for instance in reversed(DefaultScope._instance_dict.values())
              if instance.scope_name not in ('shiftwise_mm', 'mmengine')]
    for scope in scopes:
        try:
            import_module(f'{scope}.registry')
        except ModuleNotFoundError as error:
            if error.name not in (scope, f'{scope}.registry'):
                raise  # a package that lacks something, not just a name
    return scopes or ['mmdet', 'mmseg', 'mmpretrain']


DATASETS = ScopedRegistry(
    'dataset', parent=MMENGINE_DATASETS, scope='shiftwise_mm',
    locations=['shiftwise_mm.datasets'])
HOOKS = ScopedRegistry(
    'hook', parent=MMENGINE_HOOKS, scope='shiftwise_mm',
    locations=['shiftwise_mm.engine.hooks'])
METRICS = ScopedRegistry(
    'metric', parent=MMENGINE_METRICS, scope='shiftwise_mm',
    locations=['shiftwise_mm.evaluation'])
MODELS = ScopedRegistry(
    'model', parent=MMENGINE_MODELS, scope='shiftwise_mm',
    locations=['shiftwise_mm.models'])
OPTIM_WRAPPERS = ScopedRegistry(
    'optim_wrapper', parent=MMENGINE_OPTIM_WRAPPERS, scope='shiftwise_mm',
    locations=['shiftwise_mm.engine.optimizers'])
OPTIM_WRAPPER_CONSTRUCTORS = ScopedRegistry(
    'optimizer wrapper constructor', parent=MMENGINE_CONSTRUCTORS,
    scope='shiftwise_mm', locations=['shiftwise_mm.engine.optimizers'])
TRANSFORMS = ScopedRegistry(
    'transform', parent=MMENGINE_TRANSFORMS, scope='shiftwise_mm',
    locations=['shiftwise_mm.datasets'])
# Of these nothing is here, but mmengine looks in them for all of the scope.
DATA_SAMPLERS, LOOPS, PARAM_SCHEDULERS, TASK_UTILS = (
    ScopedRegistry(parent.name, parent=parent, scope='shiftwise_mm',
                   locations=['shiftwise_mm.registry'])
    for parent in (MMENGINE_DATA_SAMPLERS, MMENGINE_LOOPS,
                   MMENGINE_SCHEDULERS, MMENGINE_TASK_UTILS))
