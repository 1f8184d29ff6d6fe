"""The networks that sub-command ``model`` compares."""
from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn as nn

from shiftwise_mm.models import ConvNeXt, ShiftWiseNet, SLaK, UniRepLKNet
from shiftwise_mm.stack import import_optional

from .published_networks import compose_as_published

__all__ = ['Entry', 'FAMILIES', 'ENTRIES', 'family', 'settle', 'twin']


def _swin(**options) -> nn.Module:
    backbones = import_optional('mmdet.models.backbones', 'Swin-T (mmdet)')
    return backbones.SwinTransformer(drop_path_rate=0., **options)


# Scale .1: with the published 1e-6 of new networks a block's mistake would
# not show in the outputs.
_SCALE = dict(layer_scale_init_value=.1, norm_out=False)
FAMILIES: dict[str, Callable[..., nn.Module]] = {
    'SW-T': lambda **o: ShiftWiseNet('tiny', **_SCALE, **o),
    'SW-S': lambda **o: ShiftWiseNet('small', **_SCALE, **o),
    'SLaK-T': lambda **o: SLaK('tiny', **_SCALE, **o),
    'UniRepLKNet-T': lambda **o: UniRepLKNet('t', **_SCALE, **o),
    'ConvNeXt-T': lambda **o: ConvNeXt('tiny', **_SCALE, **o),
    'Swin-T (mmdet)': _swin,
}


@dataclass(frozen=True)
class Entry:
    """A row: a network in one of its compositions.

    Attributes:
        family (str): Key of :data:`FAMILIES`; all entries of a family share
            weights and must agree.
        how (str): ``'training form'`` or ``'deployed'``.
        published (bool): Whether composed as the published code does it.
        with_cp (bool): Whether blocks are computed again in the backward
            pass.
    """

    family: str
    how: str
    published: bool = False
    with_cp: bool = False

    @property
    def name(self) -> str:
        """Name of the row."""
        return ', '.join([self.family, self.how]
                         + ['published composition'] * self.published
                         + ['with_cp'] * self.with_cp)

    def make(self, network: nn.Module) -> nn.Module:
        """The row's network out of the family's, which stays as it is."""
        network = copy.deepcopy(network)
        if self.how == 'deployed':
            network.switch_to_deploy()
        if self.with_cp:
            network.with_cp = True
        return compose_as_published(network) if self.published else network


_TRAIN, _DEPLOY = 'training form', 'deployed'
ENTRIES = (
    Entry('SW-T', _TRAIN),
    Entry('SW-T', _TRAIN, with_cp=True),
    Entry('SW-T', _DEPLOY),
    Entry('SW-S', _TRAIN),
    Entry('SW-S', _DEPLOY),
    Entry('SLaK-T', _TRAIN, published=True),
    Entry('SLaK-T', _TRAIN),
    Entry('SLaK-T', _DEPLOY),
    Entry('UniRepLKNet-T', _TRAIN, published=True),
    Entry('UniRepLKNet-T', _TRAIN),
    Entry('UniRepLKNet-T', _DEPLOY, published=True),
    Entry('UniRepLKNet-T', _DEPLOY),
    Entry('ConvNeXt-T', _TRAIN),
    Entry('ConvNeXt-T', _DEPLOY),
    Entry('Swin-T (mmdet)', _TRAIN),
)


def family(name: str, device: torch.device, **options) -> nn.Module:
    """A network of a family with random weights, the same each time.

    Args:
        name (str): Key of :data:`FAMILIES`.
        device (torch.device): Where it is put.
        options: Arguments of the network instead of its defaults.

    Raises:
        ImportError: If its package is not installed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(0)
        network = FAMILIES[name](**options)
    return settle(network).to(device)


@torch.no_grad()
def settle(network: nn.Module) -> nn.Module:
    """Gives norms and scales values that a wrong folding shows in."""
    generator = torch.Generator().manual_seed(0)

    def fill(tensor, low: float, high: float) -> None:
        if tensor is not None:
            tensor.uniform_(low, high, generator=generator)

    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            fill(module.running_mean, -.1, .1)
            fill(module.running_var, .8, 1.2)
            fill(module.weight, .8, 1.2)
            fill(module.bias, -.1, .1)
        elif type(module).__name__ == 'GRN':
            fill(module.gamma, -.1, .1)
            fill(module.beta, -.1, .1)
    return network


def twin(network: nn.Module, layout: torch.memory_format) -> nn.Module:
    """The same network in another layout; only 4-D parameters are copied."""
    shared = {id(p): p for p in network.parameters() if p.dim() != 4}
    return copy.deepcopy(network, shared).to(memory_format=layout)
