"""Mixed precision on the CPU: gradients, mmcv's ops, states."""
import copy

import pytest
import torch
from helpers import assert_near
from mmcv.ops import DeformConv2d, RoIAlign
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import OptimWrapper, build_optim_wrapper
from segmentor import batch_of, build_segmentor, make_segmentor

from shiftwise_mm.engine.optimizers import CpuAmpOptimWrapper


class Recorder(torch.optim.SGD):
    """Keeps the gradients that it is asked to step by."""

    def step(self, closure=None):
        self.seen = [p.grad.clone() for group in self.param_groups
                     for p in group['params']]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return make_segmentor(tmp_path_factory.mktemp('segmentor'))


def gradients(folder, wrapper=CpuAmpOptimWrapper, *, batches=(range(4), ),
              **options):
    """By name, as a training step of each batch leaves them."""
    model = revert_sync_batchnorm(build_segmentor(folder, **options)).train()
    optimizer = Recorder(model.parameters(), lr=1.)
    optim_wrapper = wrapper(optimizer=optimizer,
                            accumulative_counts=len(batches))
    torch.manual_seed(1)
    for indices in batches:
        model.train_step(batch_of(indices), optim_wrapper)
    names = [name for name, _ in model.named_parameters()]
    return dict(zip(names, optimizer.seen, strict=True))


def assert_same(found, expected, tolerance):
    assert found.keys() == expected.keys() and len(found) > 20
    for name, gradient in expected.items():
        assert gradient.dtype == torch.float32
        assert_near(found[name], gradient, tolerance)
        assert gradient.abs().max() > 0, name


def test_it_computes_in_bf16(folder):
    precise = gradients(folder, OptimWrapper)
    mixed = gradients(folder)
    assert precise.keys() == mixed.keys()
    for name, gradient in precise.items():
        # Chains of bf16 operations, each of 8 bits.
        assert_near(mixed[name], gradient, .2)
    assert any((mixed[name] != gradient).any()
               for name, gradient in precise.items())
    seen = []
    model = build_segmentor(folder)
    model.decode_head.conv_seg.register_forward_hook(
        lambda module, args, out: seen.append(out.dtype))
    wrapper = CpuAmpOptimWrapper(optimizer=Recorder(model.parameters(), lr=1.))
    with wrapper.optim_context(model), torch.no_grad():
        revert_sync_batchnorm(model)(torch.rand(1, 3, 64, 64))
    assert seen == [torch.bfloat16]


@pytest.mark.parametrize('wrapper, tolerance', [
    # In bf16 a sum over more pixels is rounded to 8 bits once more.
    (OptimWrapper, 1e-5), (CpuAmpOptimWrapper, 8e-2)])
def test_accumulated_gradients_are_those_of_the_whole_batch(
        wrapper, tolerance, folder):
    halves = range(2), range(2, 4)
    parts = gradients(folder, wrapper, batches=halves)
    assert_same(parts, gradients(folder, wrapper), tolerance)
    one, other = (gradients(folder, wrapper, batches=[half])
                  for half in halves)
    assert_same(parts, {name: (one[name] + other[name]) / 2
                        for name in one}, 1e-6)
    assert any((one[name] - gradient).abs().max() > .1 * gradient.abs().max()
               for name, gradient in parts.items())


@pytest.mark.parametrize('wrapper', [OptimWrapper, CpuAmpOptimWrapper])
def test_checkpointed_gradients_are_the_same(wrapper, folder):
    options = dict(model__backbone__drop_path_rate=.4)
    plain = gradients(folder, wrapper, **options)
    saving = gradients(folder, wrapper, **options,
                       model__backbone__with_cp=True)
    assert_same(saving, plain, 1e-6)


class WithOps(torch.nn.Module):
    """RoIAlign behind a convolution, as in detectors."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.align = RoIAlign((3, 3), sampling_ratio=2)
        self.deform = DeformConv2d(4, 4, 3, padding=1)

    def forward(self, x, rois):
        feats = self.conv(x)
        offsets = feats.new_zeros(1, 18, *feats.shape[2:])
        return self.align(feats, rois=rois), self.deform(feats, offsets)


def test_ops_of_mmcv_run_in_fp32():
    torch.manual_seed(0)
    model = WithOps()
    x, rois = torch.randn(1, 3, 9, 11), torch.tensor([[0., 1, 2, 7, 8]])
    wrapper = CpuAmpOptimWrapper(optimizer=Recorder(model.parameters(), lr=1.))
    seen = []
    for _ in range(2):  # prepared once
        with wrapper.optim_context(model):
            outs = model(x, rois.bfloat16())
        model.align.register_forward_pre_hook(
            lambda module, args: seen.append(args[0].dtype))
    assert len(model.deform._forward_pre_hooks) == 1
    with torch.no_grad():
        expected = model(x, rois)
    for out, precise in zip(outs, expected, strict=True):
        assert out.dtype == torch.bfloat16 and precise.dtype == torch.float32
        assert_near(out.detach(), precise, 2e-2)
    assert seen == [torch.float32] * 3  # once, then by two hooks
    sum(out.float().sum() for out in outs).backward()
    assert all(p.grad is not None for p in model.parameters())
    # A copy, as that of an EMA, has hooks of its own.
    assert copy.deepcopy(model)(x, rois)[0].dtype == torch.float32


def test_autocast_is_as_before_after_an_error():
    model = WithOps()
    wrapper = CpuAmpOptimWrapper(optimizer=Recorder(model.parameters(), lr=1.))
    with wrapper.optim_context(model):
        with pytest.raises(RuntimeError):
            model.deform(torch.rand(1, 5, 9, 9), torch.rand(1, 18, 9, 9))
        assert torch.is_autocast_enabled('cpu')
    assert not torch.is_autocast_enabled('cpu')


def test_a_state_of_the_wrapper_of_gpus_loads():
    model = torch.nn.Linear(2, 3)
    cfg = dict(type='shiftwise_mm.CpuAmpOptimWrapper',
               optimizer=dict(type='SGD', lr=.1, momentum=.9))
    wrapper = build_optim_wrapper(model, cfg)
    assert isinstance(wrapper, CpuAmpOptimWrapper)
    wrapper.update_params(model(torch.ones(1, 2)).sum())
    state = wrapper.state_dict()
    fresh = build_optim_wrapper(model, cfg)
    fresh.load_state_dict({**state, 'loss_scaler': dict(scale=65536.)})
    assert fresh.optimizer.state_dict() == wrapper.optimizer.state_dict()
