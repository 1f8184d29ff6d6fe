"""Names of the backbones."""
import pytest
import torch

from shiftwise_mm.registry import MODELS
from shiftwise_mm.swap import BACKBONES, SwapError
from shiftwise_mm.swap.names import backbone_config
from shiftwise_mm.swap.plan import embed_dims


def test_an_unknown_name_is_answered_by_all():
    with pytest.raises(SwapError, match="got 'shiftwise-huge'") as caught:
        backbone_config('shiftwise-huge')
    assert all(name in str(caught.value) for name in BACKBONES)


def test_each_call_gives_a_config_of_its_own():
    backbone_config('slak-tiny')['arch'] = 'mine'
    assert backbone_config('slak-tiny')['arch'] == 'tiny'


@pytest.mark.parametrize(('name', 'channels'), [
    ('shiftwise-tiny', (80, 160, 320, 640)),
    ('slak-tiny', (124, 249, 499, 998)),
    ('unireplknet-a', (40, 80, 160, 320)),
    ('convnext-tiny', (96, 192, 384, 768)),
])
def test_channels(name, channels):
    assert tuple(embed_dims(name)) == channels


@pytest.mark.slow
@pytest.mark.parametrize('name', BACKBONES)
def test_every_name_builds(name):
    with torch.device('meta'):
        backbone = MODELS.build(backbone_config(name))
    assert len(backbone.embed_dims) == 4
