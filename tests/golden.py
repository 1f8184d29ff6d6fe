"""Models of the reference files, built with their published weights."""
from __future__ import annotations

import torch
from helpers import shared_path

from shiftwise_mm.models import ShiftWiseConv2d, ShiftWiseNet


def published_to_native(name):
    """Names of the published code as ours; the rest is the same."""
    for old, new in (('LoRAs.', 'convs.'), ('bn_lora1', 'norm_h'),
                     ('bn_lora2', 'norm_v'), ('bn_small', 'norm_i')):
        name = name.replace(old, new)
    return name


def from_golden(file, **options):
    golden = torch.load(shared_path('golden', file))
    config = golden['config']
    *kernel_sizes, small_kernel = config['kernel_size']
    net = ShiftWiseNet(
        dict(embed_dims=config['dims'], depths=config['depths']),
        kernel_sizes=kernel_sizes, small_kernel=small_kernel,
        ghost_ratio=config['ghost_ratio'], num_paths=config['N_path'],
        num_reps=config['N_rep'], norm_out=False, **options).eval()
    weights = {
        published_to_native(name): value
        for name, value in golden['state_dict'].items()
        if not name.startswith(('norm.', 'head.'))
    }
    tables = {
        name: value
        for name, value in net.state_dict().items()
        if name.rsplit('.')[-1] in ShiftWiseConv2d._TABLES
    }
    net.load_state_dict({**weights, **tables}, strict=True)
    return net, golden
