"""Batch-norms and other normalisations from ``norm_cfg``, without mmcv."""
from __future__ import annotations

import inspect

import torch.nn as nn
from mmengine.registry import MODELS
from mmengine.utils.dl_utils.parrots_wrapper import SyncBatchNorm

__all__ = ['build_norm']

# The names that mmcv gives to torch's layers; not in the registry without it.
_NAMES = {
    'BN': nn.BatchNorm2d,
    'BN2d': nn.BatchNorm2d,
    'SyncBN': SyncBatchNorm,
    'GN': nn.GroupNorm,
    'LN': nn.LayerNorm,
    'IN': nn.InstanceNorm2d,
    'IN2d': nn.InstanceNorm2d,
}


def build_norm(cfg: dict, num_features: int) -> nn.Module:
    """A normalisation layer, by the rules of ``mmcv.cnn.build_norm_layer``.

    Args:
        cfg (dict): ``type``, a class or a name: one of the registries, or
            ``'BN'``, ``'SyncBN'``, ``'GN'``, ... for torch's; what else the
            class takes (``eps`` is 1e-5 by default); and ``requires_grad``,
            whether its parameters are trained, by default True.
        num_features (int): Number of channels.

    Returns:
        nn.Module: The layer.

    Raises:
        TypeError: If ``cfg`` is not a dict.
        KeyError: If it has no ``type``, or one that is not registered.
        ValueError: If it is a group normalisation without ``num_groups``.
    """
    if not isinstance(cfg, dict):
        raise TypeError(f'norm_cfg must be a dict, got {cfg!r}')
    if 'type' not in cfg:
        raise KeyError(f'norm_cfg must have a type, got {cfg!r}')
    options = dict(cfg)
    kind = options.pop('type')
    trained = options.pop('requires_grad', True)
    options.setdefault('eps', 1e-5)
    layer = _class_of(kind)
    if layer is nn.GroupNorm:
        if 'num_groups' not in options:
            raise ValueError(f'norm_cfg of a group normalisation must have '
                             f'num_groups, got {cfg!r}')
        norm = layer(num_channels=num_features, **options)
    else:
        norm = layer(num_features, **options)
    for parameter in norm.parameters():
        parameter.requires_grad = trained
    return norm


def _class_of(kind: str | type) -> type:
    """The class of a type, looked up where configs look it up."""
    if inspect.isclass(kind):
        return kind
    with MODELS.switch_scope_and_registry(None) as registry:
        found = registry.get(kind) or _NAMES.get(kind)
        if found is None:
            raise KeyError(f'norm_cfg: there is no type {kind!r} in the '
                           f'registry of scope {registry.scope!r}')
    return found
