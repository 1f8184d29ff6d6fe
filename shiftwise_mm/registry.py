"""Registries of scope ``shiftwise_mm``, children of mmengine's.

``type='shiftwise_mm.X'`` in any OpenMMLab config makes mmengine import this
file, which must stay light: an ImportError here is only logged at debug
level. What is registered is imported when first looked up.
"""
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import METRICS as MMENGINE_METRICS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import (
    OPTIM_WRAPPER_CONSTRUCTORS as MMENGINE_CONSTRUCTORS,
)
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

__all__ = [
    'DATASETS', 'HOOKS', 'METRICS', 'MODELS', 'OPTIM_WRAPPERS',
    'OPTIM_WRAPPER_CONSTRUCTORS', 'TRANSFORMS'
]

DATASETS = Registry('dataset', parent=MMENGINE_DATASETS, scope='shiftwise_mm',
                    locations=['shiftwise_mm.datasets'])
HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='shiftwise_mm',
                 locations=['shiftwise_mm.engine.hooks'])
METRICS = Registry('metric', parent=MMENGINE_METRICS, scope='shiftwise_mm',
                   locations=['shiftwise_mm.evaluation'])
MODELS = Registry('model', parent=MMENGINE_MODELS, scope='shiftwise_mm',
                  locations=['shiftwise_mm.models'])
OPTIM_WRAPPERS = Registry('optim_wrapper', parent=MMENGINE_OPTIM_WRAPPERS,
                          scope='shiftwise_mm',
                          locations=['shiftwise_mm.engine.optimizers'])
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor', parent=MMENGINE_CONSTRUCTORS,
    scope='shiftwise_mm', locations=['shiftwise_mm.engine.optimizers'])
TRANSFORMS = Registry('transform', parent=MMENGINE_TRANSFORMS,
                      scope='shiftwise_mm',
                      locations=['shiftwise_mm.datasets'])
