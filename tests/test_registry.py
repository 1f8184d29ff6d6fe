"""Types without a prefix in configs that inherit from 'shiftwise_mm::...'."""
from collections import OrderedDict

import mmdet.datasets.transforms
import mmengine.registry
import mmseg.datasets.transforms
import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, TRANSFORMS, DefaultScope
from mmseg.models.decode_heads import FCNHead

from shiftwise_mm import registry

DEMOS = {'mmdet': 'rtmdet_shiftwise-nano_demo_shapes',
         'mmseg': 'upernet_shiftwise-nano_demo_shapes'}
LIBRARIES = {'mmdet': mmdet, 'mmseg': mmseg}


@pytest.mark.parametrize('scope', DEMOS)
def test_a_config_that_inherits_from_a_whole_one_builds(scope, tmp_path):
    """As mmengine's runner builds: by its own registries."""
    file = tmp_path / 'mine.py'
    file.write_text(f"_base_ = 'shiftwise_mm::demo/{DEMOS[scope]}.py'\n"
                    'model = dict(backbone=dict(drop_path_rate=0.1))\n')
    cfg = Config.fromfile(file)
    assert cfg.model._scope_ == 'shiftwise_mm'  # mmengine's doing
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
        steps = [TRANSFORMS.build(step) for step in cfg.train_pipeline]
    assert type(model).__module__.startswith(f'{scope}.')
    assert type(model.backbone).__name__ == 'ShiftWiseNet'
    # mmcv has registered a LoadAnnotations as well.
    assert type(steps[1]) is \
        LIBRARIES[scope].datasets.transforms.LoadAnnotations


def test_without_a_default_scope_it_is_found_all_the_same(monkeypatch):
    # Other tests have set some.
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())
    assert DefaultScope.get_current_instance() is None
    head = dict(type='FCNHead', in_channels=4, channels=4, num_classes=2,
                _scope_='shiftwise_mm')
    assert type(MODELS.build(head)) is FCNHead


def test_what_no_library_has_is_an_error():
    with DefaultScope.overwrite_default_scope('no_such_scope'), \
            pytest.raises(KeyError, match='Nothing is not in'):
        MODELS.build(dict(type='Nothing', _scope_='shiftwise_mm'))


@pytest.mark.parametrize('kind', registry.__all__)
def test_own_types_and_mmengines_are_as_ever(kind):
    own = getattr(registry, kind)
    parent = getattr(mmengine.registry, kind)
    assert own.parent is parent and own.scope == 'shiftwise_mm'
    assert own.get('NoSuchType') is None
    for name, found in parent.module_dict.items():
        assert name in own.module_dict or own.get(name) is not None, found
    for name, found in own.module_dict.items():
        assert parent.get(f'shiftwise_mm.{name}') is found
