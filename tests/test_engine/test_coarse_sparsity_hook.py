"""CoarseSparsityHook inside mmengine's Runner."""
import inspect
import itertools
import json
import random

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapperDict
from mmengine.registry import OPTIM_WRAPPERS
from published import make, published_file
from sparse import (
    BACKBONE,
    HOOK,
    SLAK,
    assert_same,
    kernels_of,
    masks_of,
    over_weights,
    runner_of,
    train,
    weights_of,
)

from shiftwise_mm.engine.hooks import CoarseSparsityHook
from shiftwise_mm.engine.inputs import InputError
from shiftwise_mm.registry import HOOKS

EMA = dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=.3)
UNITS = {'backbone.stages.0.0.large_kernel.mask': 30,
         'backbone.stages.1.0.large_kernel.mask': 24,
         'backbone.stages.1.1.large_kernel.mask': 24}


def kept_of(masks):
    return {name: mask.flatten(1).sum(1).tolist()
            for name, mask in masks.items()}


def changes_of(watch):
    """Iterations, from 1, behind which the masks were others."""
    return [i + 2 for i, (one, other) in enumerate(
        itertools.pairwise(watch.masks))
        if any(not torch.equal(one[name], other[name]) for name in one)]


def final_state(runner):
    return {name: value.clone()
            for name, value in runner.model.state_dict().items()}


# --- options ---------------------------------------------------------------


def test_the_signature_is_the_one_agreed_on():
    parameters = inspect.signature(CoarseSparsityHook).parameters
    assert {name: p.default for name, p in parameters.items()} == dict(
        sparsity=.3, granularity='tap', init='snip', prune_rate=.3,
        prune='magnitude', growth='random', interval=100, path_gap=131,
        end=None, targets='depthwise', seed=0)
    assert isinstance(HOOKS.build(dict(
        type='shiftwise_mm.CoarseSparsityHook')), CoarseSparsityHook)


@pytest.mark.parametrize('init', ['snip', 'erk', 'uniform'])
@pytest.mark.parametrize('granularity', ['tap', 'weight'])
@pytest.mark.parametrize('growth', ['random', 'gradient'])
def test_training(init, granularity, growth, tmp_path):
    """Zero, moments too, behind every step; as many kept as at first."""
    hook = {**HOOK, 'init': init, 'granularity': granularity,
            'growth': growth, 'sparsity': .35}
    runner, watch = train(tmp_path, 7, hook=hook)
    first, kept = watch.masks[0], kept_of(watch.masks[0])
    size = 9 if granularity == 'weight' else 1
    assert {n: m[0].numel() for n, m in first.items()} == {
        name: size * units for name, units in UNITS.items()}
    for name, mask in first.items():
        assert torch.equal(mask[0], mask[1]), name  # one for all paths
    if init == 'uniform':
        assert kept == {name: [int(.65 * size * units + .5)] * 2
                        for name, units in UNITS.items()}
    assert sum(k[0] for k in kept.values()) == pytest.approx(
        .65 * size * 78, abs=2)
    assert all(kept_of(masks) == kept for masks in watch.masks)
    # Behind steps 2 and 6 each path decides, behind 4 both as one.
    assert changes_of(watch) == [2, 4, 6]
    for i, equal in ((1, False), (3, True), (5, False)):
        assert equal == all(torch.equal(*mask)
                            for mask in watch.masks[i].values())


def test_snip_gives_each_layer_its_density(tmp_path):
    """By hand: the gradients of the first batch, without masks."""
    runner = runner_of(tmp_path / 'plain', 1, hook=None)
    model = runner.model.train()
    batch = next(iter(runner.build_dataloader(
        runner.cfg.train_dataloader, seed=0)))
    torch.manual_seed(5)
    model(**model.data_preprocessor(batch, True),
          mode='loss')['loss'].backward()
    scores = {}
    for name in UNITS:
        weights = kernels_of(model, name)
        scores[name] = torch.stack([(w * w.grad).abs().mean((1, 2, 3))
                                    for w in weights])
    threshold = torch.cat([s.flatten() for s in scores.values()]
                          ).sort(descending=True).values[int(.4 * 156) - 1]
    expected = {name: int((score >= threshold).sum() / 2 + .5)
                for name, score in scores.items()}
    assert len(set(expected.values())) > 1

    torch.manual_seed(5)
    hook = {**HOOK, 'init': 'snip', 'sparsity': .6}
    # Dropout draws what it drew above.
    runner = runner_of(tmp_path / 'snip', 1, hook=hook)
    runner.register_hook(_Seeded(), priority='VERY_HIGH')
    runner.train()
    assert kept_of(masks_of(runner.model)) == {
        name: [count] * 2 for name, count in expected.items()}


class _Seeded(Hook):

    def before_train_iter(self, runner, **kwargs):
        torch.manual_seed(5)


@pytest.mark.parametrize('form, granularity', [
    ('large', 'weight'), ('shiftwise', 'tap'), ('shiftwise', 'weight'),
    ('shared_gated', 'tap')])
@pytest.mark.parametrize('init', ['snip', 'uniform'])
def test_slak(form, granularity, init, tmp_path):
    hook = {**HOOK, 'granularity': granularity, 'init': init, 'sparsity': .5}
    runner, watch = train(tmp_path, 5, hook=hook,
                          backbone={**SLAK, 'form': form})
    assert len(watch.masks[0]) == (2 if form == 'shared_gated' else 4)
    assert changes_of(watch) == [2, 4]
    assert all(kept_of(m) == kept_of(watch.masks[0]) for m in watch.masks)


def test_seeds_and_the_end(tmp_path):
    runs = [train(tmp_path / str(i), 8, hook={**HOOK, **options})[1]
            for i, options in enumerate((
                {}, {}, dict(seed=1), dict(end=5), dict(prune_rate=0)))]
    assert_same(runs[0].masks[-1], runs[1].masks[-1])
    for name, mask in runs[0].masks[0].items():
        assert not torch.equal(mask, runs[2].masks[0][name])
    assert [changes_of(run) for run in runs] == [
        [2, 4, 6], [2, 4, 6], [2, 4, 6], [2, 4], []]


# --- what must not change --------------------------------------------------


@pytest.mark.parametrize('init', ['snip', 'uniform', 'erk'])
@pytest.mark.parametrize('growth', ['random', 'gradient'])
def test_without_sparsity_it_is_the_dense_training(init, growth, tmp_path):
    """Bit for bit, dropout and statistics of norms included."""
    dense = runner_of(tmp_path / 'dense', 4, hook=None)
    dense.train()
    states = [(torch.get_rng_state(), np.random.get_state()[1],
               random.getstate())]
    hook = {**HOOK, 'sparsity': 0, 'init': init, 'growth': growth}
    sparse, _ = train(tmp_path / 'sparse', 4, hook=hook, watched=False)
    states.append((torch.get_rng_state(), np.random.get_state()[1],
                   random.getstate()))
    assert all(mask.all() for mask in masks_of(sparse.model).values())
    assert_same({k: v for k, v in sparse.model.state_dict().items()
                 if not k.endswith('mask')}, dense.model.state_dict())
    assert torch.equal(states[0][0], states[1][0])
    assert (states[0][1] == states[1][1]).all()
    assert states[0][2] == states[1][2]


@pytest.mark.parametrize('optimizer', [
    dict(type='SGD', lr=.1, momentum=.9, weight_decay=.1),
    dict(type='AdamW', lr=.01, weight_decay=.1)])
def test_gradients_of_masked_taps_move_nothing(optimizer, tmp_path):
    """Not even by the norm that gradients are clipped to."""
    norms = []
    for name, value in (('zero', 0.), ('other', 3.)):
        runner = runner_of(
            tmp_path / name, 3, hook={**HOOK, 'prune_rate': 0},
            optim_wrapper=dict(optimizer=dict(optimizer),
                               clip_grad=dict(max_norm=.05)))
        runner.register_hook(_Disturb(value), priority='HIGH')
        runner.train()
        norms.append((runner.message_hub.get_scalar('train/grad_norm').data[0],
                      final_state(runner)))
    assert (norms[0][0] == norms[1][0]).all() and norms[0][0].min() > .05
    assert_same(norms[0][1], norms[1][1])


class _Disturb(Hook):
    """Adds to the loss what only masked taps feel."""

    def __init__(self, value):
        self.value = value

    def before_train(self, runner):
        inner = runner.model.forward

        def forward(*args, mode='tensor', **kwargs):
            out = inner(*args, mode=mode, **kwargs)
            for name, mask in masks_of(runner.model).items():
                for path, weight in enumerate(kernels_of(runner.model, name)):
                    out['loss'] = out['loss'] + self.value * (
                        weight * ~over_weights(mask)[path]).sum()
            return out

        runner.model.forward = forward


# --- schedules -------------------------------------------------------------


def test_accumulated_batches_are_one_step(tmp_path):
    runner, watch = train(tmp_path, 12, hook={**HOOK, 'growth': 'gradient'},
                          optim_wrapper=dict(accumulative_counts=3))
    assert changes_of(watch) == [6]  # 4 steps, the last without an update
    hook, = (h for h in runner.hooks if isinstance(h, CoarseSparsityHook))
    assert hook._training.steps == 4


def test_a_remainder_is_a_step(tmp_path):
    runner, watch = train(tmp_path, 8, hook={**HOOK, 'interval': 1},
                          optim_wrapper=dict(accumulative_counts=3))
    hook, = (h for h in runner.hooks if isinstance(h, CoarseSparsityHook))
    assert hook._training.steps == hook._training.schedule.end == 3
    assert changes_of(watch) == [3, 6]


def test_accumulating_is_training_with_the_whole_batch(tmp_path):
    """Nothing depends on the batch: masks grow by the sum of gradients."""
    backbone = {**BACKBONE, 'norm_eval': True, 'drop_path_rate': 0.}
    masks = []
    for name, size, counts in (('whole', 6, 1), ('parts', 3, 2)):
        runner, watch = train(
            tmp_path / name, 4 * counts, watched=False, backbone=backbone,
            hook={**HOOK, 'growth': 'gradient'},
            hooks=[dict(type='SparseNoDropout'), dict(type='SparseWatch')],
            optim_wrapper=dict(accumulative_counts=counts),
            train_dataloader=dict(
                batch_size=size, num_workers=0,
                sampler=dict(type='InfiniteSampler', shuffle=False),
                dataset=dict(type='SparseNoise')))
        masks.append(watch.masks)
    assert_same(masks[1][3], masks[0][1])
    assert_same(masks[1][-1], masks[0][-1])
    assert any((masks[0][0][n] != masks[0][1][n]).any() for n in masks[0][0])


@OPTIM_WRAPPERS.register_module(name='SparseScaled', force=True)
class Scaled(AmpOptimWrapper):
    """Loss scaling as with fp16, on a CPU and without autocast."""

    def __init__(self, **kwargs):
        super(AmpOptimWrapper, self).__init__(**kwargs)
        self._scale_update_param = None
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=1024.)

    def optim_context(self, model):
        return super(AmpOptimWrapper, self).optim_context(model)


@pytest.mark.parametrize('growth', ['random', 'gradient'])
@pytest.mark.parametrize('clip', [None, dict(max_norm=1.)])
def test_steps_that_mixed_precision_skips_do_not_count(growth, clip,
                                                       tmp_path):
    hook = {**HOOK, 'growth': growth, 'sparsity': .5}
    runner, watch = train(
        tmp_path, 9, hook=hook, model=dict(bad=(3, 4)),
        optim_wrapper=dict(type='SparseScaled', clip_grad=clip))
    # Steps 1 2 - - 3 4 5 6 7.
    assert changes_of(watch) == [2, 6, 8]
    own, = (h for h in runner.hooks if isinstance(h, CoarseSparsityHook))
    assert own._training.steps == 7
    for before, after in (watch.weights[2], watch.weights[3]):
        assert_same(after, before)


def test_bf16_on_a_cpu(tmp_path):
    wrapper = dict(type='shiftwise_mm.CpuAmpOptimWrapper')
    runner, watch = train(tmp_path, 7, optim_wrapper=wrapper,
                          hook={**HOOK, 'init': 'snip', 'growth': 'gradient'})
    assert changes_of(watch) == [2, 4, 6]


@pytest.mark.parametrize('growth', ['random', 'gradient'])
def test_recomputed_blocks(growth, tmp_path):
    hook = {**HOOK, 'init': 'snip', 'growth': growth}
    runs = [
        train(tmp_path / str(with_cp), 7, hook=hook,
              backbone={**BACKBONE, 'with_cp': with_cp})
        for with_cp in (False, True)]
    for one, other in zip(runs[0][1].masks, runs[1][1].masks, strict=True):
        assert_same(other, one)
    # Norms see recomputed batches twice: their statistics are others.
    assert_same(*(dict(run.model.named_parameters()) for run, _ in runs))


# --- averages and checkpoints ----------------------------------------------


@pytest.mark.parametrize('options', [
    {}, dict(update_buffers=True), dict(interval=2), dict(begin_iter=3),
    dict(ema_type='StochasticWeightAverage', momentum=None),
    dict(priority='VERY_HIGH')], ids=str)
def test_ema(options, tmp_path):
    """Masks in the average as well, and masked weights are zero there."""
    ema = {k: v for k, v in {**EMA, **options}.items() if v is not None}
    runner, watch = train(tmp_path, 8, hooks=[ema], averaged=True, save=8)
    assert changes_of(watch) == [2, 4, 6]
    saved = torch.load(tmp_path / 'iter_8.pth')
    for name, mask in watch.masks[-1].items():
        layer = name.removesuffix('mask')
        for key, prefix in (('state_dict', ''), ('ema_state_dict',
                                                 'module.')):
            state = saved[key]
            assert torch.equal(state[prefix + name], mask)
            for path in range(2):
                weight = state[f'{prefix}{layer}convs.{path}.weight']
                assert not weight[~mask[path]].any() and weight.any()
    averaged = saved['state_dict'][f'{layer}convs.0.weight']
    assert (averaged != runner.model.get_submodule(layer[:-1]
                                                   ).convs[0].weight).any()


CASES = {
    'random': ({}, {}, []),
    'gradient, snip': (dict(growth='gradient', init='snip'), {}, []),
    'ema': (dict(growth='gradient'), {}, [EMA]),
    'ema, buffers': ({}, {}, [{**EMA, 'update_buffers': True}]),
    'accumulation': (dict(growth='gradient', interval=1),
                     dict(accumulative_counts=2), []),
    'scaled': ({}, dict(type='SparseScaled'), []),
    'sgd': ({}, dict(optimizer=dict(type='SGD', lr=.1, momentum=.9)), []),
    'weights': (dict(granularity='weight'), {}, []),
}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """Never stopped: folder and masks behind each of ten iterations."""
    done = {}

    def get(case):
        if case not in done:
            folder = tmp_path_factory.mktemp('whole')
            done[case] = folder, train(folder, 10, save=1,
                                       **options_of(case))[1].masks
        return done[case]

    return get


def options_of(case):
    options, wrapper, hooks = CASES[case]
    return dict(
        hook={**HOOK, **options}, optim_wrapper=wrapper,
        hooks=[*hooks, dict(type='SparseNoDropout')], averaged=bool(hooks),
        backbone={**BACKBONE, 'drop_path_rate': 0.})


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('stop', [1, 2, 5])
def test_resuming_is_not_stopping(case, stop, whole, tmp_path):
    """Masks, weights and averages bit for bit."""
    folder, masks = whole(case)
    if 'accumulative_counts' in CASES[case][1]:
        stop += stop % 2  # mmengine drops half a step
    resumed, watch = train(tmp_path, 10, save=10, resume=True,
                           load_from=str(folder / f'iter_{stop}.pth'),
                           **options_of(case))
    assert len(watch.masks) == 10 - stop and changes_of(watch)
    for one, other in zip(watch.masks, masks[stop:], strict=True):
        assert_same(one, other)
    saved, expected = (torch.load(each / 'iter_10.pth')
                       for each in (tmp_path, folder))
    assert ('ema_state_dict' in saved) == bool(CASES[case][2])
    for key in ('state_dict', 'ema_state_dict'):
        if key in saved:
            assert_same(saved[key], expected[key])
    state = expected['coarse_sparsity']
    assert saved['coarse_sparsity']['steps'] == state['steps'] >= 5
    assert torch.equal(saved['coarse_sparsity']['generator'],
                       state['generator'])


def test_a_dense_training_goes_on_sparsely(tmp_path):
    train(tmp_path, 4, hook=None, watched=False, save=4)
    runner, watch = train(tmp_path, 9, resume=True)
    assert changes_of(watch) == [2, 4]  # steps 6 and 8
    text = ''.join(log.read_text() for log in tmp_path.rglob('*.log'))
    assert 'not of a sparse training: CoarseSparsityHook begins with ' \
        "init='uniform'" in text


def test_a_checkpoint_without_its_masks_is_refused(tmp_path):
    train(tmp_path, 2, save=2)
    file = tmp_path / 'iter_2.pth'
    saved = torch.load(file)
    for name in list(saved['state_dict']):
        if name.endswith('stages.1.0.large_kernel.mask'):
            del saved['state_dict'][name]
    torch.save(saved, file)
    with pytest.raises(InputError, match=r'holds no mask backbone\.stages\.1'
                       r'\.0\.large_kernel\.mask'):
        train(tmp_path, 4, resume=True)


def test_old_checkpoints_load_unchanged(tmp_path):
    """Into models with and without masks; files with masks into both."""
    dense, _ = train(tmp_path / 'dense', 2, hook=None, watched=False,
                     save=2)
    sparse, _ = train(tmp_path / 'sparse', 2, save=2)
    for name in ('dense', 'sparse'):
        source = dense if name == 'dense' else sparse
        file = str(tmp_path / name / 'iter_2.pth')
        plain = runner_of(tmp_path / 'plain', hook=None)
        plain.load_checkpoint(file, strict=True)
        assert_same(plain.model.state_dict(), {
            k: v for k, v in source.model.state_dict().items()
            if not k.endswith('.mask')})
        masked = runner_of(tmp_path / 'masked')
        masked.call_hook('before_run')
        masked.load_checkpoint(file, strict=True)
        if name == 'sparse':
            assert_same(masked.model.state_dict(), source.model.state_dict())
        else:
            assert all(m.all() for m in masks_of(masked.model).values())


# --- fine-tuning -----------------------------------------------------------


FINE = {**HOOK, 'init': 'from_weights', 'interval': 1}


def test_fine_tuning_keeps_the_mask(tmp_path):
    """Of our own files: masks and weights, those just grown too."""
    _, watch = train(tmp_path / 'pre', 7, save=6)
    runner, fine = train(tmp_path / 'fine', 5, hook=FINE,
                         load_from=str(tmp_path / 'pre/iter_6.pth'))
    for masks in fine.masks:
        assert_same(masks, watch.masks[5])
    for name, weights in weights_of(runner.model).items():
        before = watch.weights[5][1][name]
        # Behind step 6, an update: what was grown was still zero.
        assert any(not tap.any() for tap in before[watch.masks[5][name]])
        kept = over_weights(watch.masks[5][name]).expand_as(weights)
        assert (weights[kept] != before[kept]).float().mean() > .9


def published_sparse(tmp_path):
    """A published v2 file, with taps that are zero; and which."""
    source, zeros = make('v2'), {}
    generator = torch.Generator().manual_seed(1)
    for name, parameter in source.named_parameters():
        if '.convs.' in name:
            zeros[name] = torch.rand(len(parameter),
                                     generator=generator) < .4
            parameter.data[zeros[name]] = 0
    torch.save(published_file('v2', source), tmp_path / 'published.pth')
    return str(tmp_path / 'published.pth'), zeros, source


@pytest.mark.parametrize('way', ['load_from', 'init_cfg'])
@pytest.mark.parametrize('granularity', ['tap', 'weight'])
def test_published_sparse_files_fine_tune(way, granularity, tmp_path):
    file, zeros, source = published_sparse(tmp_path)
    backbone = dict(
        type='shiftwise_mm.ShiftWiseNet', layer_scale_init_value=.5,
        arch=dict(embed_dims=source.embed_dims, depths=source.depths))
    options = dict(load_from=file) if way == 'load_from' else {}
    if way == 'init_cfg':
        backbone['init_cfg'] = dict(type='Pretrained', checkpoint=file)
    runner, watch = train(
        tmp_path / 'work', 3, hook={**FINE, 'granularity': granularity},
        hooks=[dict(type='shiftwise_mm.ConvertPretrainedHook'), EMA],
        backbone=backbone, averaged=True, **options)
    state = runner.model.backbone.state_dict()
    for name, zero in zeros.items():
        layer, _, rest = name.partition('convs.')
        mask = state[f'{layer}mask'][int(rest[0])]
        flags = mask if granularity == 'tap' else mask.flatten(1).any(1)
        assert torch.equal(flags, ~zero), name
        assert not state[name][zero].any()
        trained = source.state_dict()[name][~zero] != state[name][~zero]
        assert trained.float().mean() > .8
    assert changes_of(watch) == []


# --- what is shown ---------------------------------------------------------


@pytest.mark.parametrize('granularity', ['tap', 'weight'])
def test_log_and_visualizer(granularity, tmp_path):
    runner, watch = train(tmp_path, 5, hook={
        **HOOK, 'granularity': granularity})
    rows = [json.loads(line) for line in next(tmp_path.rglob(
        'vis_data/scalars.json')).read_text().splitlines()]
    assert len(rows) == 5
    dropped, grown = (f'{granularity}s_{name}'
                      for name in ('dropped', 'grown'))
    for i, row in enumerate(rows):
        for stage in range(2):
            flags = torch.cat([
                mask.flatten() for name, mask in watch.masks[i].items()
                if f'stages.{stage}.' in name])
            assert row[f'density_stage{stage}'] == pytest.approx(
                flags.float().mean().item(), abs=1e-6)
        assert (dropped in row) == (i >= 1)
        if i in (1, 3):
            gone = sum(int((watch.masks[i - 1][name] & ~mask).sum())
                       for name, mask in watch.masks[i].items())
            assert row[dropped] == row[grown] == gone > 0
    text = next(tmp_path.rglob('*.log')).read_text()
    assert f'Sparse training, density by {granularity}: stage0 0.6' in text
    assert 'density_stage0: 0.6' in text and f'{dropped}: ' in text


# --- errors ----------------------------------------------------------------


@pytest.mark.parametrize('options, error', [
    (dict(sparsity=1), 'sparsity must be in'),
    (dict(sparsity=-.1), 'sparsity must be in'),
    (dict(sparsity=float('nan')), 'sparsity must be in'),
    (dict(sparsity='0.3'), 'sparsity must be a number'),
    (dict(prune_rate=1.), 'prune_rate must be in'),
    (dict(prune_rate=None), 'prune_rate must be a number'),
    (dict(granularity='coarse'), "granularity must be one of .*'coarse'"),
    (dict(init='ERK'), "init must be one of .*'ERK'"),
    (dict(prune='random'), "prune must be one of .*'random'"),
    (dict(growth='momentum'), "growth must be one of .*'momentum'"),
    (dict(targets='pointwise'), "targets must be one of .*'pointwise'"),
    (dict(interval=0), 'interval'), (dict(interval=2.5), 'interval'),
    (dict(path_gap=0), 'path_gap'), (dict(end=0), 'end'),
    (dict(seed=-1), 'seed'), (dict(seed=None), 'seed')], ids=str)
def test_arguments_that_cannot_work(options, error, tmp_path):
    with pytest.raises((TypeError, ValueError), match=error):
        CoarseSparsityHook(**options)
    with pytest.raises((TypeError, ValueError), match=error):
        runner_of(tmp_path, hook={**HOOK, **options})


@pytest.mark.parametrize('options, error', [
    (dict(backbone={**BACKBONE, 'frozen_stages': 2}),
     'no layer to train sparsely in Task'),
    (dict(backbone={**BACKBONE, 'deploy': True}), 'no layer to train'),
    (dict(backbone=dict(type='shiftwise_mm.ConvNeXt', arch=dict(
        embed_dims=(8, 8), depths=(1, 1)), out_indices=(1, ))),
     'no layer to train'),
    (dict(backbone=SLAK), r"backbone\.stages\.0\.0\.large_kernel: "
     r"granularity='tap' needs small kernels"),
    (dict(hook=FINE), r'no tap of the 3 masks is zero'),
    *((dict(hook={**HOOK, 'init': 'snip'}, model=dict(
        loss=loss)), f"init='snip' .*{words}")
      for loss, words in (('constant', 'does not depend on the kernels'),
                          ('fixed', 'depends on no parameter'),
                          ('nan', 'not finite'))),
    (dict(hook={**HOOK, 'init': 'snip'}, model=dict(type='SparseNoLoss')),
     r"init='snip' .*NoLoss\.train_step handed no loss")], ids=str)
def test_settings_that_cannot_work(options, error, tmp_path):
    runner = runner_of(tmp_path, **options)
    before = final_state(runner)
    with pytest.raises(InputError, match=error):
        runner.train()
    # Before the first step.
    after = runner.model.state_dict()
    for name, _ in runner.model.named_parameters():
        kernel = options.get('backbone') is None and '.convs.' in name
        assert kernel or torch.equal(after[name], before[name]), name
    assert runner.iter == 0


@pytest.mark.parametrize('change, error', [
    (dict(hook={**HOOK, 'granularity': 'weight'}),
     r'large_kernel\.mask of the checkpoint, \(2, 30\), does not fit that of '
     r'the layer, \(2, 30, 3, 3\): granularity'),
    (dict(backbone={**BACKBONE, 'arch': dict(
        embed_dims=(8, 12), depths=(1, 1))}),
     r'backbone\.stages\.1\.1\.large_kernel\.mask of the checkpoint fits no')])
@pytest.mark.parametrize('resume', [True, False])
def test_masks_that_fit_no_layer(change, error, resume, tmp_path):
    train(tmp_path, 2, save=2)
    with pytest.raises(InputError, match=error):
        train(tmp_path, 4, resume=resume,
              load_from=str(tmp_path / 'iter_2.pth'), **change)


def test_no_or_two_optimizers_of_the_kernels(tmp_path):
    runner = runner_of(tmp_path)
    runner.call_hook('before_run')
    hook, = (h for h in runner.hooks if isinstance(h, CoarseSparsityHook))
    wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    kernels = [p for n, p in runner.model.named_parameters() if 'convs' in n]
    others = [p for n, p in runner.model.named_parameters()
              if 'convs' not in n]

    def wrapped(*groups):
        return OptimWrapperDict(**{
            str(i): type(wrapper)(torch.optim.SGD(group, lr=.1))
            for i, group in enumerate(groups)})

    assert hook._wrapper_of(wrapper) is wrapper
    both = wrapped(others, kernels)
    assert hook._wrapper_of(both) is both['1']
    for groups, count in (((others, ), 0), ((kernels[:1], kernels[1:]), 2)):
        with pytest.raises(InputError, match='one optimizer that trains the '
                           f'kernels, got {count}'):
            hook._wrapper_of(wrapped(*groups))


def test_testing_and_frozen_stages(tmp_path):
    """A deployed model is tested by the config it was trained by."""
    runner = runner_of(tmp_path, backbone={**BACKBONE, 'deploy': True})
    runner.call_hook('before_run')
    runner = runner_of(tmp_path / 'frozen', 3,
                       backbone={**BACKBONE, 'frozen_stages': 1})
    runner.train()
    assert {name.split('.')[2] for name in masks_of(runner.model)} == {'1'}
