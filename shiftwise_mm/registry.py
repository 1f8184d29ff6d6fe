"""Registries of scope ``shiftwise_mm``, children of mmengine's.

``type='shiftwise_mm.X'`` in any OpenMMLab config makes mmengine import this
file, which must stay light: an ImportError here is only logged at debug
level. What is registered is imported when first looked up.
"""
from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import Registry

__all__ = ['HOOKS', 'MODELS']

HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='shiftwise_mm',
                 locations=['shiftwise_mm.engine.hooks'])
MODELS = Registry('model', parent=MMENGINE_MODELS, scope='shiftwise_mm',
                  locations=['shiftwise_mm.models'])
