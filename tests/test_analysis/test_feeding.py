"""What reaches the heads of detectors and segmentors."""
import pytest
import torch
from helpers import ROOT
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from shiftwise_mm.analysis import count_model
from shiftwise_mm.analysis.feeding import fed

NANO = dict(arch='nano', kernel_sizes=(7, 7, 5, 5))
DIMS = [24, 48, 96, 192]


def build(name):
    """A model of the configs with a backbone and heads that take no time."""
    cfg = Config.fromfile(ROOT / 'configs' / name)
    model = cfg.model
    model.backbone.update(NANO)
    if cfg.default_scope == 'mmdet':
        model.neck.update(in_channels=DIMS, out_channels=16)
        model.rpn_head.update(in_channels=16, feat_channels=16)
        model.roi_head.bbox_roi_extractor.out_channels = 16
        model.roi_head.mask_roi_extractor.out_channels = 16
        for head in model.roi_head.bbox_head:
            head.update(in_channels=16, conv_out_channels=16,
                        fc_out_channels=16)
        model.roi_head.mask_head.update(in_channels=16, conv_out_channels=16)
    else:
        model.decode_head.update(in_channels=DIMS, channels=16)
        model.auxiliary_head.update(in_channels=96, channels=16)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(model)


DETECTOR = 'detection/cascade-mask-rcnn_shiftwise-tiny_fpn_ms-3x_coco.py'
SEGMENTOR = 'segmentation/upernet_shiftwise-tiny_160k_ade20k-512x512.py'


def shapes_into(modules, run):
    """The shape of the first argument of every call of a module."""
    shapes = []
    handles = [module.register_forward_hook(
        lambda module, args, out: shapes.append(tuple(args[0].shape)))
        for module in modules]
    run()
    for handle in handles:
        handle.remove()
    return shapes


@pytest.mark.parametrize('seed', [0, 1])
def test_boxes_are_as_many_as_the_test_may_keep(seed):
    torch.manual_seed(seed)
    detector = build(DETECTOR)
    detector.rpn_head.test_cfg.max_per_img = 70
    detector.roi_head.test_cfg.max_per_img = 40
    roi = detector.roi_head

    def run():
        with fed(detector, (70, 96)) as inputs:
            assert inputs[0].shape == (1, 3, 96, 96)  # padded to 32
            out = detector(*inputs)
        assert out[0][-1][0].shape == (70, 80, 28, 28)

    assert shapes_into(roi.bbox_head, run) == [(70, 16, 7, 7)] * 3
    # The hooks that cut have gone, and came before those of this test.
    assert shapes_into(roi.mask_head, run) == [(40, 16, 14, 14)] * 3
    assert not any(h._forward_pre_hooks for h in roi.mask_head)
    assert 'predict' not in vars(detector.rpn_head)
    assert 'forward' not in vars(detector)


def test_counts_depend_on_the_shape_and_not_on_the_weights():
    counts = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        detector = build(DETECTOR)
        detector.rpn_head.test_cfg.max_per_img = 50
        counts.append(count_model(detector, (64, 96)))
    assert counts[0] == counts[1]


def test_auxiliary_heads_count_by_their_parameters_only():
    segmentor = build(SEGMENTOR)
    whole = count_model(segmentor, (64, 96))
    auxiliary = sum(p.numel() for p in segmentor.auxiliary_head.parameters())
    assert auxiliary > 0
    segmentor.auxiliary_head = None
    without = count_model(segmentor, (64, 96))
    assert whole.macs == without.macs
    assert whole.params == without.params + auxiliary


def test_the_model_keeps_its_modes_and_its_own_forward():
    segmentor = build(SEGMENTOR).train()
    segmentor.decode_head.eval()

    def mine(inputs, data_samples=None, mode='tensor'):
        assert mode == 'tensor' and len(data_samples) == 1
        return segmentor.extract_feat(inputs)

    segmentor.forward = mine
    modes = [module.training for module in segmentor.modules()]
    with pytest.raises(RuntimeError, match='inside'):
        with fed(segmentor, (32, 64)) as inputs:
            assert not any(m.training for m in segmentor.modules())
            assert not torch.is_grad_enabled()
            assert len(segmentor(*inputs)) == 4
            raise RuntimeError('inside')
    assert [module.training for module in segmentor.modules()] == modes
    assert torch.is_grad_enabled()
    assert segmentor.forward is mine


def test_no_global_generator_is_touched():
    segmentor = build(SEGMENTOR)
    state = torch.get_rng_state()
    count_model(segmentor, (32, 64))
    assert torch.equal(torch.get_rng_state(), state)
