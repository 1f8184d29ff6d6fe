"""Models of the reference files, loaded from their published weights."""
from __future__ import annotations

import torch
from helpers import shared_path

from shiftwise_mm.models import (
    ImageClassifier,
    ShiftWiseNet,
    SLaK,
    UniRepLKNet,
)

FILES = ('sw_v2.pth', 'sw_v2_n5_path1_rep1.pth', 'sw_v1.pth',
         'sw_v1_ghost0_path1_rep1.pth', 'slak.pth', 'slak_shared_gated.pth',
         'unireplknet.pth')


def read_golden(file):
    """A reference file."""
    return torch.load(shared_path('golden', file))


def backbone_cfg(file, config, **options):
    """Our config of a published model, by the arguments of its own."""
    arch = dict(embed_dims=config['dims'], depths=config['depths'])
    if file.startswith('unireplknet'):
        arch['kernel_sizes'] = config['kernel_sizes']
        return dict(type=UniRepLKNet, arch=arch, norm_out=False, **options)
    *kernel_sizes, small_kernel = config['kernel_size']
    common = dict(arch=arch, kernel_sizes=kernel_sizes, norm_out=False,
                  small_kernel=small_kernel, **options)
    if file.startswith('slak'):
        form = 'shared_gated' if 'gated' in file else 'large'
        return {
            **dict(type=SLaK, form=form,
                   width_factor=config.get('width_factor', 1.)), **common
        }
    return dict(
        type=ShiftWiseNet, style='slak' if 'v1' in file else 'unirep',
        ghost_ratio=config['ghost_ratio'], num_paths=config['N_path'],
        num_reps=config['N_rep'], **common)


def from_golden(file, **options):
    """The backbone of a reference file with its weights, and the file."""
    golden = read_golden(file)
    cfg = backbone_cfg(file, golden['config'], **options)
    net = cfg.pop('type')(**cfg).eval()
    net.load_state_dict(golden['state_dict'])
    return net, golden


def classifier_of(file, config, **options):
    """An ImageClassifier that a reference file fits."""
    cfg = backbone_cfg(file, config, out_indices=(3, ), **options)
    width = int(config['dims'][-1] * config.get('width_factor', 1.))
    return ImageClassifier(cfg, dict(
        type='shiftwise_mm.ShiftWiseClsHead', in_channels=width,
        num_classes=config['num_classes'])).eval()
