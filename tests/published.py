"""Mini networks, and their weights as upstream would save them."""
from __future__ import annotations

import argparse

import torch
from helpers import randomise_norms

from shiftwise_mm.models import (
    ConvNeXt,
    ImageClassifier,
    ShiftWiseNet,
    SLaK,
    UniRepLKNet,
)

DIMS, DEPTHS = (8, 12, 16, 20), (1, 2, 1, 1)
MINI = dict(embed_dims=DIMS, depths=DEPTHS)
MIXED = dict(**MINI, kernel_sizes=(3, (13, 5), 7, 9))

# Ours to upstream's, written from the names in upstream's files.
_SHIFTWISE = {'convs.': 'LoRAs.', 'norm_h.': 'bn_lora1.',
              'norm_v.': 'bn_lora2.', 'norm_i.': 'bn_small.'}
_SMALL = {'conv_i.': 'small_conv.conv.', 'norm_i.': 'small_conv.bn.'}
_SLAK = {'norm_v.': 'LoRA1.bn.', 'norm_h.': 'LoRA2.bn.', **_SMALL}
# Name, how to build it, upstream's names, what it is recognised as.
FAMILIES = {
    'v2': (lambda **o: ShiftWiseNet(MINI, **o), _SHIFTWISE, 'ShiftWise v2'),
    'v1': (lambda **o: ShiftWiseNet(MINI, style='slak', **o), _SHIFTWISE,
           'ShiftWise v1'),
    'slak': (lambda **o: SLaK(MINI, **o),
             {'conv_v.': 'LoRA1.conv.', 'conv_h.': 'LoRA2.conv.', **_SLAK},
             'SLaK, published'),
    'slak as shiftwise': (
        lambda **o: SLaK(MINI, form='shiftwise', **o),
        {'conv_v.': 'LoRA1.split_convs.', 'conv_h.': 'LoRA2.split_convs.',
         **_SLAK}, 'SLaK in shift-wise form'),
    'slak gated': (
        lambda **o: SLaK(MINI, form='shared_gated', width_factor=1., **o),
        {'conv.': 'LoRA.split_convs.', 'gate_h.': 'LoRA.lora1.',
         'gate_v.': 'LoRA.lora2.', 'norm_h.': 'LoRA.bn_lora1.',
         'norm_v.': 'LoRA.bn_lora2.', **_SMALL},
        'SLaK with shared, gated kernels'),
    'unireplknet': (lambda **o: UniRepLKNet(MIXED, **o), {}, 'UniRepLKNet'),
    'convnext': (lambda **o: ConvNeXt(MINI, **o), {}, 'ConvNeXt'),
}
TABLES = ('rep_index', 'ghost_index', 'shift_h', 'shift_v', 'shift_i')


def make(family, seed=0, **options):
    """A mini network with weights that a wrong name would show."""
    torch.manual_seed(seed)
    net = FAMILIES[family][0](**{
        **dict(layer_scale_init_value=.5, norm_out=False), **options}).eval()
    randomise_norms(net, seed)
    for parameter in net.parameters():
        if parameter.dim() == 1 or 'gate' in parameter.shape:
            parameter.data.uniform_(.3, 1.2)
    return net


def published(family, net, num_classes=7):
    """The state dict as upstream has it: its names, no tables, a head."""
    renames = FAMILIES[family][1]
    state = {}
    for name, value in net.state_dict().items():
        start, dot, last = name.partition('.large_kernel.')
        if last in TABLES:
            continue
        for ours, theirs in renames.items():
            if last.startswith(ours):
                last = theirs + last.removeprefix(ours)
                break
        state[start + dot + last] = value
    dim = net.embed_dims[-1]
    generator = torch.Generator().manual_seed(1)
    for name, shape in (('norm.weight', (dim, )), ('norm.bias', (dim, )),
                        ('head.weight', (num_classes, dim)),
                        ('head.bias', (num_classes, ))):
        state[name] = torch.randn(shape, generator=generator)
    return state


def published_file(family, net, **args):
    """The checkpoint as upstream saves it."""
    return dict(model=published(family, net), optimizer=dict(state={}),
                epoch=3, scaler={}, args=argparse.Namespace(lr=.004, **args))


def outputs(net, x=None):
    """Outputs in eval mode, on fixed input."""
    if x is None:
        x = torch.randn(2, 3, 64, 64,
                        generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return net.eval()(x)


def classifier(num_classes=7, seed=0):
    """An ImageClassifier around the mini network of family ``'v2'``."""
    torch.manual_seed(seed)
    net = ImageClassifier(
        dict(type=ShiftWiseNet, arch=MINI, layer_scale_init_value=.5,
             norm_out=False, out_indices=(3, )),
        dict(type='shiftwise_mm.ShiftWiseClsHead', in_channels=DIMS[-1],
             num_classes=num_classes))
    randomise_norms(net, seed)
    return net.eval()
