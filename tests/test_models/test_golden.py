"""Every published model: stages, logits, gradients, deployed."""
import pytest
import torch
from golden import (
    FILES,
    backbone_cfg,
    classifier_of,
    from_golden,
    read_golden,
)
from helpers import assert_near

from shiftwise_mm.checkpoint import convert_state_dict
from shiftwise_mm.models import SLaK


def assert_stages(net, golden):
    with torch.no_grad():
        outs = net(golden['input'])
    for ours, expected in zip(outs, golden['stages'], strict=True):
        assert_near(ours, expected, 1e-5)


def forms_of(file):
    """The options that may not change the function."""
    if file == 'slak.pth':
        return [dict(form='large'), dict(form='shiftwise', shift_form='strip'),
                dict(form='shiftwise', shift_form='shift')]
    if file == 'unireplknet.pth':
        return [{}]
    return [dict(shift_form='strip'), dict(shift_form='shift')]


@pytest.mark.parametrize('file, options', [
    pytest.param(file, options, id='-'.join([file, *options.values()]))
    for file in FILES for options in forms_of(file)])
def test_stages_and_their_deployed_form(file, options):
    net, golden = from_golden(file, **options)
    assert_stages(net, golden)
    net.switch_to_deploy()
    assert_stages(net, golden)
    state = net.state_dict()
    cfg = backbone_cfg(file, golden['config'], **options, deploy=True)
    built = cfg.pop('type')(**cfg).eval()
    built.load_state_dict(state)
    assert_stages(built, golden)


@pytest.mark.parametrize('file', FILES)
def test_logits_and_their_deployed_form(file):
    golden = read_golden(file)
    net = classifier_of(file, golden['config'])
    weights, _ = convert_state_dict(golden['state_dict'], prefix='backbone.',
                                    head='head.')
    net.load_state_dict(weights)
    with torch.no_grad():
        assert_near(net(golden['input']), golden['logits'], 1e-5)
        net.backbone.switch_to_deploy()
        deployed = net(golden['input'])
    assert_near(deployed, golden['logits'], 1e-5)
    if 'logits_deployed' in golden:
        assert_near(deployed, golden['logits_deployed'], 1e-5)


@pytest.mark.parametrize('form', ['large', 'shiftwise'])
def test_logits_of_slak_published_in_shiftwise_form(form):
    golden = read_golden('slak_as_shiftwise.pth')
    config = read_golden('slak.pth')['config']
    net = classifier_of('slak.pth', config, form=form)
    weights, report = convert_state_dict(
        golden['state_dict'], prefix='backbone.', head='head.')
    assert 'shift-wise form' in report.recognised
    net.load_state_dict(weights)
    with torch.no_grad():
        assert_near(net(golden['input']), golden['logits'], 1e-5)
        net.backbone.switch_to_deploy()
        assert_near(net(golden['input']), golden['logits'], 1e-5)


def test_a_loaded_slak_switches_its_form_without_loss():
    net, golden = from_golden('slak.pth')
    before = {key: value.clone() for key, value in net.state_dict().items()}
    for form in ('shiftwise', 'large'):
        net.switch_form(form)
        assert_stages(net, golden)
    assert all(torch.equal(value, before[key])
               for key, value in net.state_dict().items())
    assert isinstance(net, SLaK)


@pytest.mark.parametrize('form', ['strip', 'shift'])
def test_gradients(form):
    net, golden = from_golden('sw_v2.pth', shift_form=form)
    x = golden['input'].clone().requires_grad_()
    torch.autograd.backward(net(x), golden['cotangents'])
    ours = {'input': x, **dict(net.named_parameters())}
    native = convert_state_dict(golden['state_dict'])[1].names
    compared = 0
    for name, expected in golden['grads'].items():
        assert_near(ours[native.get(name, name)].grad, expected, 1e-4)
        compared += 1
    assert compared == len(golden['grads']) >= 30
