"""Another backbone for an existing config, and the check that it fits."""
from .names import BACKBONES, SwapError
from .original import OriginalError
from .plan import Swap, plan_swap, swap_backbone
from .text import read_config, short_config, write_short_config

__all__ = ['BACKBONES', 'OriginalError', 'Swap', 'SwapError', 'plan_swap',
           'read_config', 'short_config', 'swap_backbone',
           'write_short_config']
