"""What takes which level, and how it changes."""
import pytest

from shiftwise_mm.swap import SwapError
from shiftwise_mm.swap.original import Level, Owner
from shiftwise_mm.swap.reader import Place
from shiftwise_mm.swap.readers import find_readers

# ResNet-18, plain, and dilated to an output stride of 8.
PLAIN = [Level(64, 4), Level(128, 8), Level(256, 16), Level(512, 32)]
# Two levels of the same number of channels could hide a mix-up.
NEW = (24, 48, 96, 192)


def readers_of(scope='mmdet', levels=PLAIN, **part):
    return find_readers(Owner(('model', ), part, scope), levels)


def changes_of(reader, levels=PLAIN):
    """As if each level that is used came from the stage of its number."""
    used = sorted(set(reader.levels))
    return reader.rewrite({
        level: Place(i, NEW[level], len(used))
        for i, level in enumerate(used)})


@pytest.mark.parametrize(('neck', 'used', 'changes'), [
    (dict(type='FPN', in_channels=[64, 128, 256, 512]), (0, 1, 2, 3),
     dict(in_channels=[24, 48, 96, 192])),
    (dict(type='FPN', in_channels=[64, 128, 256, 512], start_level=1),
     (1, 2, 3), dict(in_channels=[48, 96, 192], start_level=0)),
    (dict(type='FPN', in_channels=[64, 128, 256, 512], start_level=1,
          end_level=2), (1, 2),
     dict(in_channels=[48, 96], start_level=0, end_level=-1)),
    (dict(type='FPN', in_channels=(64, 128, 256, 512)), (0, 1, 2, 3),
     dict(in_channels=(24, 48, 96, 192))),
], ids=['all', 'start', 'start and end', 'tuple'])
def test_a_neck_takes_a_subset(neck, used, changes):
    reader, = readers_of(neck=neck)
    assert reader.levels == used
    assert changes_of(reader) == {'neck': changes}


def test_the_start_of_a_neck_may_be_its_default():
    """BiFPN of EfficientDet starts at level 0, NAS-FPN as it is told."""
    reader, = readers_of(neck=dict(
        type='NASFPN', in_channels=[64, 128, 256, 512], num_outs=5))
    assert reader.levels == (0, 1, 2, 3)


def test_a_neck_may_take_the_levels_backwards():
    levels = PLAIN[1:]
    reader, = readers_of(levels=levels, neck=dict(
        type='YOLOV3Neck', in_channels=[512, 256, 128]))
    assert changes_of(reader) == dict(neck=dict(in_channels=[96, 48, 24]))


def test_a_neck_of_one_level_takes_the_last():
    reader, = readers_of(neck=dict(type='DilatedEncoder', in_channels=512))
    assert reader.levels == (3, )
    assert changes_of(reader) == dict(neck=dict(in_channels=192))


@pytest.mark.parametrize(('groups', 'fewer'), [(32, 4), (4, None)])
def test_group_norms_inside_a_neck_divide_the_channels(groups, fewer):
    """Blocks of half of 24 channels take 4 groups, not 32."""
    reader, = readers_of(neck=dict(
        type='CSPNeXtPAFPN', in_channels=[64, 128, 256, 512],
        norm_cfg=dict(type='GN', num_groups=groups)))
    change = changes_of(reader)['neck'].get('norm_cfg')
    assert change == (dict(num_groups=fewer) if fewer else None)


def test_a_list_of_necks_is_read_by_its_first():
    reader, = readers_of(neck=[
        dict(type='FPN', in_channels=[64, 128, 256, 512], start_level=1),
        dict(type='BFP', in_channels=256)])
    assert changes_of(reader) == dict(neck={
        '0': dict(in_channels=[48, 96, 192], start_level=0)})


def test_the_last_level_that_jpu_leaves_goes_on_to_the_heads():
    """JPU makes the last of its outputs; FCN takes one that it hands on."""
    neck, decode, auxiliary = readers_of(
        'mmseg', neck=dict(type='JPU', in_channels=(64, 128, 256, 512)),
        decode_head=dict(type='PSPHead', in_channels=2048, in_index=3),
        auxiliary_head=dict(type='FCNHead', in_channels=256, in_index=2))
    assert neck.levels == (0, 1, 2, 3)
    assert decode.levels == ()
    assert auxiliary.levels == (2, )
    assert changes_of(auxiliary)['auxiliary_head']['in_channels'] == 96


def test_heads_of_a_segmentor_get_channels_and_places():
    decode, first, second = readers_of(
        'mmseg', decode_head=dict(
            type='ASPPHead', in_channels=512, in_index=3),
        auxiliary_head=[
            dict(type='FCNHead', in_channels=256, in_index=2),
            dict(type='FCNHead', in_channels=256, in_index=-2)])
    assert [reader.levels for reader in (decode, first, second)] == [
        (3, ), (2, ), (2, )]
    places = {2: Place(0, 96, 2), 3: Place(1, 192, 2)}
    assert decode.rewrite(places) == dict(
        decode_head=dict(in_channels=192, in_index=1))
    assert first.rewrite(places) == dict(auxiliary_head={
        '0': dict(in_channels=96, in_index=0)})
    # It counts from the end, which is right as it is.
    assert second.rewrite(places) == dict(auxiliary_head={
        '1': dict(in_channels=96)})


def test_a_head_that_takes_several_levels():
    reader, = readers_of('mmseg', decode_head=dict(
        type='LightHamHead', in_channels=[128, 256, 512],
        in_index=[1, 2, 3]))
    assert reader.levels == (1, 2, 3)
    assert changes_of(reader) == dict(decode_head=dict(
        in_channels=[48, 96, 192], in_index=[0, 1, 2]))


def test_the_detail_level_of_deeplab_is_used():
    reader, = readers_of('mmseg', decode_head=dict(
        type='DepthwiseSeparableASPPHead', in_channels=512, in_index=3,
        c1_in_channels=64))
    assert reader.levels == (0, 3)
    assert changes_of(reader) == dict(decode_head=dict(
        in_channels=192, in_index=1, c1_in_channels=24))


def test_a_head_without_convolutions_keeps_the_sum():
    reader, = readers_of('mmseg', decode_head=dict(
        type='FCNHead', in_channels=[64, 128], in_index=(0, 1),
        channels=192, num_convs=0))
    assert changes_of(reader) == dict(decode_head=dict(
        in_channels=[24, 48], channels=72))


def test_the_first_head_of_knet_takes_the_backbone():
    reader, = readers_of('mmseg', decode_head=dict(
        type='IterativeDecodeHead', kernel_generate_head=dict(
            type='FCNHead', in_channels=512, in_index=3)))
    assert changes_of(reader) == dict(decode_head=dict(
        kernel_generate_head=dict(in_channels=192, in_index=0)))


def test_heads_without_a_neck_are_known_by_their_channels():
    """As in Mask2Former, whose pixel decoder is inside the head."""
    readers = readers_of(panoptic_head=dict(
        type='Mask2FormerHead', in_channels=[64, 128, 256, 512],
        pixel_decoder=dict(type='MSDeformAttnPixelDecoder'),
        feat_channels=256))
    assert [reader.name for reader in readers] == [
        'panoptic_head.in_channels']
    assert changes_of(readers[0]) == dict(panoptic_head=dict(
        in_channels=[24, 48, 96, 192]))


def test_rois_may_be_taken_from_the_backbone():
    readers = readers_of(
        levels=PLAIN[-1:], rpn_head=dict(type='RPNHead', in_channels=512),
        roi_head=dict(
            bbox_roi_extractor=dict(type='SingleRoIExtractor',
                                    out_channels=512),
            bbox_head=[dict(type='Shared2FCBBoxHead', in_channels=512,
                            fc_out_channels=1024)]))
    assert sorted(reader.name for reader in readers) == [
        'roi_head.bbox_head.0.in_channels',
        'roi_head.bbox_roi_extractor.out_channels', 'rpn_head.in_channels']


@pytest.mark.parametrize(('scope', 'part', 'sentence'), [
    ('mmdet', dict(neck=dict(type='FPN', in_channels=[64, 128, 256, 99])),
     r'FPN takes \[64, 128, 256, 99\] channels, but .*'
     r'\[64, 128, 256, 512\]'),
    ('mmdet', dict(neck=dict(type='Mine')), 'Mine has no in_channels'),
    ('mmseg', dict(neck=dict(type='Feature2Pyramid', embed_dim=512)),
     'plain transformer'),
    ('mmdet', dict(neck=dict(type='NASFCOS_FPN', in_channels=[1])),
     'by number'),
    ('mmdet', dict(roi_head=dict(shared_head=dict(type='ResLayer'))),
     'shared head ResLayer is the last stage'),
    ('mmdet', dict(bbox_head=dict(type='Head', in_channels=99)),
     'no head has the in_channels'),
    ('mmseg', dict(neck=dict(type='JPU', start_level=1,
                             in_channels=[64, 128, 256, 512])),
     'JPU takes a part'),
    ('mmseg', dict(decode_head=dict(type='Mine')), 'Mine has no in_channels'),
    ('mmseg', dict(decode_head=dict(type='FCNHead', in_channels=[64, 128],
                                    in_index=[0, 1, 2])),
     '2 in_channels for 3 levels'),
    ('mmseg', dict(decode_head=dict(type='FCNHead', in_channels=64)),
     r'FCNHead takes \[64\] channels'),
])
def test_what_cannot_be_told_is_refused(scope, part, sentence):
    with pytest.raises(SwapError, match=sentence):
        readers_of(scope, **part)
