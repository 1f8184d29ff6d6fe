"""Masks while a layer trains, without a runner."""
import math

import pytest
import torch
from sparse import assert_zero, masks_of, over_weights

from shiftwise_mm.models import ShiftWiseConv2d
from shiftwise_mm.sparsity import MaskedTraining, Schedule, find_targets

OPTIMIZERS = {
    'SGD': lambda p: torch.optim.SGD(p, lr=.1, momentum=.9, weight_decay=.1),
    'Nesterov': lambda p: torch.optim.SGD(p, lr=.1, momentum=.9,
                                          nesterov=True),
    'Adam': lambda p: torch.optim.Adam(p, lr=.01, weight_decay=.1,
                                       amsgrad=True),
    'AdamW': lambda p: torch.optim.AdamW(p, lr=.01, weight_decay=.1),
    'fused AdamW': lambda p: torch.optim.AdamW(p, lr=.01, fused=True),
    'RMSprop': lambda p: torch.optim.RMSprop(p, lr=.01, momentum=.5,
                                             centered=True),
    'Rprop': lambda p: torch.optim.Rprop(p, lr=.01),
}


class Trained:
    """A layer of two paths with a part of the trainer's state."""

    def __init__(self, optimizer='AdamW', growth='random', interval=3,
                 path_gap=2, prune_rate=.3, end=1000, kept=20, seed=0,
                 granularity='tap', paths=2, **options):
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(
            ShiftWiseConv2d(6, kernel_size=13, num_paths=paths))
        self.layer = self.model[0]
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.targets = find_targets(self.model, granularity)
        self.training = MaskedTraining(
            self.targets, Schedule(interval, path_gap, prune_rate, end),
            growth, seed, **options)
        self.training.start([kept])
        self.training.attach(self.optimizer)
        self.generator = torch.Generator().manual_seed(7)

    def backward(self):
        x = torch.randn(2, 6, 9, 11, generator=self.generator)
        (self.model(x)**2).mean().backward()

    def step(self):
        self.optimizer.zero_grad()
        self.backward()
        self.optimizer.step()


@pytest.mark.parametrize('optimizer', OPTIMIZERS)
@pytest.mark.parametrize('granularity, kept', [('tap', 20), ('weight', 150)])
def test_masked_weights_and_moments_are_zero(optimizer, granularity, kept):
    run = Trained(optimizer, granularity=granularity, kept=kept)
    seen = [masks_of(run.model)['0.mask']]
    assert torch.equal(seen[0][0], seen[0][1])
    for step in range(1, 14):
        run.step()
        assert_zero(run.model, run.optimizer)
        seen.append(masks_of(run.model)['0.mask'])
        assert seen[-1].flatten(1).sum(1).tolist() == [kept, kept]
        assert torch.equal(seen[-1], seen[-2]) == (step % 3 != 0)
    assert not torch.equal(*seen[3])  # each path its own
    assert torch.equal(*seen[6]) and torch.equal(*seen[12])  # one decision


def test_own_decisions_drop_the_least():
    run = Trained(prune_rate=.6, interval=1, path_gap=99, end=10)
    for step in range(1, 6):
        mask = run.layer.mask.clone()
        run.training.schedule = Schedule(99, 1, .6, 100)
        run.step()  # no update: the weights by which the next one decides
        run.training.schedule = Schedule(1, 99, .6, 10)
        run.training.steps = step - 1
        magnitude = run.targets[0].unit_sums(run.targets[0].weights)
        weights = [w.detach().clone() for w in run.targets[0].weights]
        for group in run.optimizer.param_groups:
            group['lr'] = 0.
        run.step()
        for group in run.optimizer.param_groups:
            group['lr'] = .01
        rate = .005 + .595 / 2 * (1 + math.cos(math.pi * step / 10))
        count = math.ceil(rate * 20)
        changed = run.layer.mask
        for path in range(2):
            # Ten of thirty are off: so many are grown, all others stay.
            order = magnitude[path].masked_fill(
                ~mask[path], float('inf')).argsort(stable=True)[:count]
            gone = (mask[path] & ~changed[path]).nonzero().flatten()
            assert len(gone) == min(count, 10)
            assert set(gone.tolist()) <= set(order.tolist())
            stays = mask[path] & changed[path]
            assert torch.equal(run.layer.convs[path].weight[stays],
                               weights[path][stays])
            grown = changed[path] & ~mask[path]
            assert not run.layer.convs[path].weight[grown].any()
        assert (run.training.change.dropped == run.training.change.grown
                == int((mask & ~changed).sum()))


def test_growth_by_gradient():
    """Grown are those of largest gradient, of all batches since a step."""
    run = Trained(growth='gradient', interval=2, path_gap=99, kept=12)
    run.step()
    mask = run.layer.mask.clone()
    run.optimizer.zero_grad()
    weight = run.layer.merged_weight().detach().requires_grad_()
    run.layer.merged_weight = lambda: sum(
        conv.weight for conv in run.layer.convs) + (weight - weight.detach())
    for _ in range(3):
        run.backward()
    run.optimizer.step()
    score = weight.grad.abs().sum((1, 2, 3))
    for path in range(2):
        grown = run.layer.mask[path] & ~mask[path]
        free = score.masked_fill(mask[path], -1)
        assert grown.sum() == 4
        assert set(grown.nonzero().flatten().tolist()) == set(
            free.topk(4).indices.tolist())


@pytest.mark.parametrize('growth', ['random', 'gradient'])
def test_masked_taps_are_computed_only_to_grow_by_gradients(growth):
    run = Trained(growth=growth, interval=3)
    for step in range(1, 8):
        wanted = growth == 'gradient' and step % 3 == 0
        assert run.layer.whole_gradients == wanted
        assert (run.layer.kept_kernels() is None) == wanted
        run.step()
    run.step()
    assert run.layer.whole_gradients == (growth == 'gradient')
    run.training.detach()
    assert not run.layer.whole_gradients


def test_a_step_that_was_skipped_leaves_no_gradient():
    run = Trained(growth='gradient', interval=2, kept=12)
    other = Trained(growth='gradient', interval=2, kept=12)
    run.step()
    other.step()
    state = run.generator.get_state()
    run.optimizer.zero_grad()
    (run.model(torch.full((2, 6, 9, 11), 1e30))**2).sum().backward()
    run.optimizer.zero_grad()  # without a step
    run.generator.set_state(state)
    for each in (run, other):
        each.step()
    assert torch.equal(run.layer.mask, other.layer.mask)
    assert run.training.steps == other.training.steps == 2


def test_gradients_of_masked_weights_are_zero():
    run = Trained()
    run.backward()
    run.backward()
    for flags, weight in zip(run.layer.mask, run.targets[0].weights,
                             strict=True):
        assert not weight.grad[~flags].any()
        assert weight.grad[flags].flatten(1).any(1).all()
    infinite = torch.full((2, 6, 9, 11), float('inf'))
    run.optimizer.zero_grad()
    (run.model(infinite)**2).sum().backward()
    assert not run.layer.convs[0].weight.grad[~run.layer.mask[0]].any()


def test_a_fused_optimizer_that_skips_makes_no_step():
    run = Trained('fused AdamW', interval=1)
    before = run.layer.mask.clone()
    run.optimizer.found_inf = torch.ones(())
    run.step()
    assert run.training.steps == 0 and torch.equal(run.layer.mask, before)
    run.optimizer.found_inf = torch.zeros(())
    run.step()
    assert run.training.steps == 1


def test_fixed_masks_stay():
    run = Trained(interval=1, fixed=True)
    before = run.layer.mask.clone()
    for _ in range(3):
        run.step()
    assert torch.equal(run.layer.mask, before)
    assert run.training.change is None and run.training.steps == 3


@pytest.mark.parametrize('options', [dict(end=4), dict(prune_rate=0)])
def test_when_nothing_is_dropped_any_more(options):
    run = Trained(interval=2, **options)
    run.step()
    run.step()
    before = run.layer.mask.clone()
    for _ in range(6):
        run.step()
    assert torch.equal(run.layer.mask, before)


@pytest.mark.parametrize('kept', [0, 30])
def test_empty_and_full_layers(kept):
    """A layer without taps keeps none; a full one all."""
    run = Trained(interval=1, path_gap=2, kept=kept)
    for _ in range(4):
        run.step()
        assert run.layer.mask.sum() == 2 * kept
    assert bool(run.layer.merged_weight().any()) == (kept > 0)


def test_seeds():
    masks = [Trained(seed=seed).layer.mask for seed in (0, 0, 1)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_no_global_generator_is_touched():
    state = torch.get_rng_state()
    run = Trained(interval=1)
    torch.set_rng_state(state)
    for _ in range(4):
        run.step()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize('growth', ['random', 'gradient'])
@pytest.mark.parametrize('stop', [1, 2, 3, 4, 5])
def test_a_state_goes_on(growth, stop):
    options = dict(growth=growth, interval=2, path_gap=2)
    whole, begun, resumed = (Trained(**options) for _ in range(3))
    for _ in range(8):
        whole.step()
    for _ in range(stop):
        begun.step()
    resumed.model.load_state_dict(begun.model.state_dict())
    resumed.optimizer.load_state_dict(begun.optimizer.state_dict())
    resumed.training.load_state_dict(begun.training.state_dict())
    resumed.training.restart()
    resumed.generator.set_state(begun.generator.get_state())
    for _ in range(8 - stop):
        resumed.step()
    assert torch.equal(resumed.layer.mask, whole.layer.mask)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name


def test_detached_it_does_nothing():
    run = Trained(interval=1)
    run.training.detach()
    run.layer.whole_gradients = True  # else there are none to be seen
    run.step()
    assert run.training.steps == 0
    masked = ~over_weights(run.layer.mask)[0].expand_as(
        run.layer.convs[0].weight)
    assert run.layer.convs[0].weight.grad[masked].any()


def test_masks_from_weights():
    run = Trained(kept=30)
    for conv, tap in zip(run.layer.convs, (3, 8), strict=True):
        conv.weight.data[tap] = 0
        conv.weight.data[tap + 1, 0, 0] = 0  # a part: the tap is kept
    run.training.start_from_weights()
    assert (~run.layer.mask).nonzero().tolist() == [[0, 3], [1, 8]]
    # A mask with zeros was loaded: a tap just grown is in it.
    run.layer.convs[0].weight.data[5] = 0
    run.training.start_from_weights()
    assert (~run.layer.mask).nonzero().tolist() == [[0, 3], [1, 8]]


def test_densities_by_stage():
    model = torch.nn.ModuleDict(dict(stages=torch.nn.ModuleList([
        ShiftWiseConv2d(4, kernel_size=9),
        torch.nn.Sequential(ShiftWiseConv2d(2, kernel_size=9),
                            ShiftWiseConv2d(6, kernel_size=9))])))
    training = MaskedTraining(find_targets(model, 'tap'),
                              Schedule(1, 1, .3, 9))
    training.start([3, 2, 9])
    assert training.densities() == pytest.approx(
        dict(stage0=3 / 12, stage1=11 / 24))
