"""Backbones by name, as users of timm would have them."""
import pytest
import torch
from helpers import randomise_norms, run_python
from published import make, published_file

import shiftwise_mm
from shiftwise_mm import build_backbone, list_models
from shiftwise_mm.swap.names import BACKBONES as SWAPPED
from shiftwise_mm.zoo import BACKBONES


def test_all_names_in_the_order_of_the_table():
    assert list_models() == list(BACKBONES) == list(SWAPPED)


@pytest.mark.parametrize('pattern, names', [
    ('slak-*', ['slak-tiny', 'slak-small', 'slak-base']),
    ('*slak-[bn]*', ['shiftwise-slak-nano', 'shiftwise-slak-base',
                     'slak-base']),
    ('unireplknet-?', [f'unireplknet-{size}' for size in 'afpntsbl']),
    (['convnext-tiny', 'shiftwise-t*', '*-tiny'],
     ['shiftwise-tiny', 'shiftwise-slak-tiny', 'slak-tiny',
      'convnext-tiny']),
    ('SLaK*', []), ('tiny', []), ([], [])])
def test_patterns(pattern, names):
    assert list_models(pattern) == names


@pytest.mark.parametrize('pattern', [None, 3, ['a', 3]])
def test_patterns_are_texts(pattern):
    with pytest.raises(TypeError, match='pattern must be a str'):
        list_models(pattern)


@pytest.mark.parametrize('name', ['shiftwise-nano', 'unireplknet-a',
                                  'shiftwise-slak-nano'])
def test_a_name_builds_what_it_says(name):
    config = dict(BACKBONES[name])
    with torch.device('meta'):
        backbone = build_backbone(name, out_indices=(1, 3), deploy=True)
    kind = config.pop('type').rpartition('.')[2]
    other = getattr(shiftwise_mm.models, kind)
    with torch.device('meta'):
        other = other(**config, out_indices=(1, 3), deploy=True)
    assert type(backbone) is type(other)
    assert backbone.out_indices == (1, 3)
    assert {k: v.shape for k, v in backbone.state_dict().items()} == \
        {k: v.shape for k, v in other.state_dict().items()}


def test_pretrained_takes_published_and_native_files(tmp_path):
    options = dict(kernel_sizes=(13, 11, 9, 7), norm_out=False)
    source = build_backbone('shiftwise-nano', **options).eval()
    randomise_norms(source)
    torch.save(published_file('v2', source), tmp_path / 'published.pth')
    torch.save(source.state_dict(), tmp_path / 'native.pth')
    x = torch.rand(1, 3, 45, 61)
    expected = source(x)
    for name in 'native', 'published':
        backbone = build_backbone('shiftwise-nano', tmp_path / f'{name}.pth',
                                  **options).eval()
        for out, want in zip(backbone(x), expected, strict=True):
            assert torch.equal(out, want)


def test_a_file_of_another_backbone_is_an_error(tmp_path):
    torch.save(make('v2').state_dict(), tmp_path / 'mini.pth')
    with pytest.raises(ValueError, match='in the file'):
        build_backbone('shiftwise-nano', pretrained=tmp_path / 'mini.pth')
    with pytest.raises(FileNotFoundError):
        build_backbone('shiftwise-nano', pretrained=tmp_path / 'no.pth')


@pytest.mark.parametrize('args, options, error, text', [
    (['shiftwise-huge'], {}, ValueError, "got 'shiftwise-huge'"),
    (['slak-tiny'], dict(arch='base'), TypeError,
     "arch cannot be given, for the name 'slak-tiny' decides it"),
    (['slak-tiny', True], {}, TypeError,
     'pretrained must be a file or URL, or None, got True'),
    (['shiftwise-nano'], dict(no_such=1), TypeError, 'no_such'),
    (['shiftwise-nano'], dict(out_indices=(7, )), ValueError,
     'out_indices')])
def test_what_is_not_allowed(args, options, error, text):
    with pytest.raises(error, match=text):
        build_backbone(*args, **options)


def test_the_package_itself_stays_light(tmp_path):
    out = run_python('''
        import sys
        import shiftwise_mm
        print(sorted(set(dir(shiftwise_mm)) & {'list_models', 'models',
                                               'build_backbone', 'zoo'}))
        print([name for name in sys.modules if name.startswith(
            ('shiftwise_mm.models', 'shiftwise_mm.zoo'))])
        print(shiftwise_mm.list_models('shiftwise-nano'))
        try:
            shiftwise_mm.nothing
        except AttributeError as error:
            print(error)
    ''', tmp_path)
    assert out == ["['build_backbone', 'list_models']", '[]',
                   "['shiftwise-nano']",
                   "module 'shiftwise_mm' has no attribute 'nothing'"]
