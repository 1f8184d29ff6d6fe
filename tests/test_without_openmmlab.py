"""torch, numpy and mmengine suffice for the backbones."""
import json

import pytest
import torch
from helpers import run_python
from mmcv.cnn import build_norm_layer
from published import make, published_file

from shiftwise_mm.models.layers.norm_cfg import build_norm

# As where nothing else is installed: importing any of these fails.
WITHOUT = '''
    import sys
    for name in 'mmcv', 'mmdet', 'mmseg', 'taichi', 'pycocotools':
        sys.modules[name] = None
'''
NORMS = [dict(type='BN'), dict(type='SyncBN', eps=1e-3), dict(type='LN'),
         dict(type='BN2d', requires_grad=False), dict(type='IN', affine=True),
         dict(type='GN', num_groups=2), dict(type='torch.nn.LayerNorm')]


def describe(norm):
    return f'{norm} {[p.requires_grad for p in norm.parameters()]}'


def test_a_backbone_trains_deploys_and_loads(tmp_path):
    torch.save(published_file('v2', make('v2')), tmp_path / 'published.pth')
    out = run_python(WITHOUT + '''
    import torch
    from mmengine.registry import MODELS
    from mmengine.runner import load_checkpoint
    from shiftwise_mm.checkpoint import load_pretrained
    from shiftwise_mm.models import ShiftWiseNet
    torch.manual_seed(0)
    net = MODELS.build(dict(type='shiftwise_mm.ShiftWiseNet', arch='nano',
                            drop_path_rate=.2, layer_scale_init_value=1.))
    x = torch.rand(2, 3, 64, 96)
    sum(out.square().mean() for out in net(x)).backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())
    net.eval()
    expected = net(x)
    net.switch_to_deploy()
    torch.save(net.state_dict(), 'deployed.pth')
    deployed = ShiftWiseNet('nano', deploy=True).eval()
    load_checkpoint(deployed, 'deployed.pth', strict=True)
    for out, same, again in zip(expected, net(x), deployed(x)):
        assert (out - same).abs().max() < 1e-4 * out.abs().max()
        assert torch.equal(same, again)
    mini = ShiftWiseNet(dict(embed_dims=(8, 12, 16, 20),
                             depths=(1, 2, 1, 1)), norm_out=False)
    print(load_pretrained(mini, 'published.pth'))
    ''', cwd=tmp_path)
    assert any('ShiftWise v2, published names' in line for line in out)


def test_everything_imports_and_says_what_it_needs(tmp_path):
    """One line, with the command that mends it; norms need nothing."""
    *norms, count, resize, shapes, taichi = run_python(WITHOUT + f'''
    import json
    from pathlib import Path
    import numpy as np
    import torch
    from shiftwise_mm.models.layers.norm_cfg import build_norm
    for cfg in json.loads({json.dumps(NORMS)!r}):
        norm = build_norm(cfg, 6)
        print(norm, [p.requires_grad for p in norm.parameters()])

    import shiftwise_mm
    root = Path(shiftwise_mm.__file__).parent
    names = ['.'.join(path.with_suffix('').parts)
             for path in sorted(root.rglob('*.py'))
             for path in [path.relative_to(root.parent)]
             if path.stem != '__main__' and '.mim' not in path.parts]
    for name in names:
        __import__(name.removesuffix('.__init__'))
    print(len(names))

    from shiftwise_mm.datasets import ResizeShortSide, make_shapes_dataset
    from shiftwise_mm.kernels import runtime
    def message(function, *args):
        try:
            function(*args)
        except (ModuleNotFoundError, RuntimeError) as error:
            print(error)
    message(ResizeShortSide(8), dict(img=np.zeros((9, 9, 3), np.uint8)))
    message(make_shapes_dataset, 'shapes')
    message(runtime.ensure, torch.device('cpu'))
    ''', tmp_path)
    assert norms == [describe(build_norm(cfg, 6)) for cfg in NORMS]
    assert int(count) > 100
    assert resize.startswith('ResizeShortSide needs mmcv, which is not ')
    assert shapes.startswith('a data set of shapes needs pycocotools, which ')
    assert taichi == ('Taichi is not installed: pip install '
                      "'shiftwise_mm[taichi]'")
    assert 'pip install' in resize and 'pip install' in shapes


@pytest.mark.parametrize('cfg', NORMS[:6], ids=str)
def test_norms_are_those_that_mmcv_builds(cfg):
    assert describe(build_norm(cfg, 6)) == \
        describe(build_norm_layer(cfg, 6)[1])


@pytest.mark.parametrize(('cfg', 'error', 'words'), [
    ('BN', TypeError, 'must be a dict'), ({}, KeyError, 'must have a type'),
    (dict(type='NoNorm'), KeyError, "no type 'NoNorm'"),
    (dict(type='GN'), ValueError, 'num_groups')])
def test_norm_cfg_is_checked(cfg, error, words):
    with pytest.raises(error, match=words):
        build_norm(cfg, 6)
