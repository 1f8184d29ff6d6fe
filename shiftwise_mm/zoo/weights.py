"""Published checkpoints, by the name of the backbone that takes them."""
from __future__ import annotations

from typing import NamedTuple

__all__ = ['PUBLISHED', 'PublishedFile']


class PublishedFile(NamedTuple):
    """A checkpoint that the authors publish.

    Attributes:
        title: What they call it.
        url: Page where it is linked.
    """

    title: str
    url: str


_SHIFTWISE = ('https://github.com/lidc54/shift-wiseConv'
              '#results-and-imagenet-1k-trained-models')
_SLAK = ('https://github.com/VITA-Group/SLaK'
         '#results-and-imagenet-1k-trained-models')
_UNIREPLKNET = 'https://github.com/AILab-CVC/UniRepLKNet'
_CONVNEXT = 'https://github.com/facebookresearch/ConvNeXt'

PUBLISHED = {
    'shiftwise-tiny': PublishedFile('SW-tiny', _SHIFTWISE),
    **{f'slak-{arch}': PublishedFile(f'SLaK-{arch[0].upper()}', _SLAK)
       for arch in ('tiny', 'small', 'base')},
    **{f'unireplknet-{arch}':
       PublishedFile(f'UniRepLKNet-{arch.upper()}', _UNIREPLKNET)
       for arch in ('a', 'f', 'p', 'n', 't', 's', 'b', 'l', 'xl')},
    **{f'convnext-{arch}': PublishedFile(f'ConvNeXt-{arch[0].upper()}',
                                         _CONVNEXT)
       for arch in ('tiny', 'small', 'base')},
}
"""Those trained on ImageNet, as ``docs/checkpoints.md`` lists them."""
