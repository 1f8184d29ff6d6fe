"""Every backbone under torch's compilers, exports, layouts and low precision.
"""
import pytest
import torch
from helpers import assert_near, randomise_norms

from shiftwise_mm.models import ConvNeXt, ShiftWiseNet, SLaK, UniRepLKNet

MINI = dict(embed_dims=(8, 12), depths=(1, 1))
LONG = dict(arch=MINI, kernel_sizes=(17, 9))
NETS = {
    'unirep': lambda **o: ShiftWiseNet(**LONG, **o),
    'slak style': lambda **o: ShiftWiseNet(**LONG, style='slak', **o),
    'SLaK': lambda **o: SLaK(**LONG, **o),
    'SLaK shiftwise': lambda **o: SLaK(**LONG, form='shiftwise', **o),
    'SLaK gated': lambda **o: SLaK(**LONG, form='shared_gated', **o),
    'UniRepLKNet': lambda **o: UniRepLKNet(
        dict(**MINI, kernel_sizes=(13, 3)), **o),
    'ConvNeXt': lambda **o: ConvNeXt(MINI, **o),
}
every_net = pytest.mark.parametrize('name', NETS)
both_forms = pytest.mark.parametrize('deploy', [False, True],
                                     ids=['training form', 'deployed'])
IMAGE = torch.randn(2, 3, 71, 96, generator=torch.Generator().manual_seed(0))


def make(name, deploy=False):
    torch.manual_seed(0)
    net = NETS[name](layer_scale_init_value=.5)
    randomise_norms(net)
    if deploy:
        net.switch_to_deploy()
    return net.eval()


def assert_all_near(actual, expected, tolerance=1e-5):
    for a, b in zip(actual, expected, strict=True):
        assert_near(a, b, tolerance)


@every_net
@both_forms
def test_a_compiler_sees_one_graph(name, deploy):
    net = make(name, deploy)
    torch.compiler.reset()
    compiled = torch.compile(net, backend='eager', fullgraph=True)
    with torch.no_grad():
        assert_all_near(compiled(IMAGE), net(IMAGE))


@every_net
def test_a_compiled_training_step(name):
    """Forward and backward, by one graph, with the same gradients."""
    net = make(name).train()
    torch.compiler.reset()
    compiled = torch.compile(
        lambda x: sum(out.square().mean() for out in net(x)),
        backend='eager' if name != 'unirep' else 'aot_eager', fullgraph=True)
    found = []
    for step in (compiled, lambda x: sum(
            out.square().mean() for out in net(x))):
        net.zero_grad()
        step(IMAGE).backward()
        # As one: those that vanish, before norms, are rounding alone.
        found.append(torch.cat([p.grad.flatten()
                                for p in net.parameters()]))
    assert_near(*found, 1e-4)


@pytest.mark.slow
@both_forms
def test_inductor(deploy):
    net = make('unirep', deploy)
    torch.compiler.reset()
    compiled = torch.compile(net, fullgraph=True)
    with torch.no_grad():
        assert_all_near(compiled(IMAGE), net(IMAGE), 1e-4)


@pytest.mark.slow
def test_inductor_trains():
    net = make('unirep').train()
    torch.compiler.reset()
    compiled = torch.compile(net, fullgraph=True)
    found = []
    for run in (compiled, net):
        net.zero_grad()
        sum(out.square().mean() for out in run(IMAGE)).backward()
        # As one: those that vanish, before norms, are rounding alone.
        found.append(torch.cat([p.grad.flatten()
                                for p in net.parameters()]))
    assert_near(*found, 1e-4)


def exported(net, image, **options):
    with torch.no_grad():
        program = torch.export.export(net, (image, ), **options)
    spaces = {str(node.target).partition('.')[0]
              for node in program.graph.nodes if node.op == 'call_function'}
    assert not any('shiftwise' in space or 'mkldnn' in space
                   for space in spaces)
    return program.module()


@every_net
@both_forms
def test_export(name, deploy):
    net = make(name, deploy)
    with torch.no_grad():
        assert_all_near(exported(net, IMAGE)(IMAGE), net(IMAGE))


@pytest.mark.slow
@every_net
@both_forms
def test_export_of_any_size(name, deploy):
    net = make(name, deploy)
    free = {0: torch.export.Dim('batch'),
            2: torch.export.Dim('height', min=64),
            3: torch.export.Dim('width', min=64)}
    module = exported(net, IMAGE, dynamic_shapes=(free, ))
    with torch.no_grad():
        for shape in (1, 3, 64, 129), (3, 3, 101, 64):
            x = torch.randn(shape)
            assert_all_near(module(x), net(x))


@every_net
@both_forms
@pytest.mark.parametrize('dtype, tolerance', [(torch.float16, .01),
                                              (torch.bfloat16, .08)])
def test_low_precision(name, deploy, dtype, tolerance):
    net = make(name, deploy)
    with torch.no_grad():
        expected = net(IMAGE)
        with torch.autocast('cpu', dtype):
            mixed = net(IMAGE)
        low = net.to(dtype)(IMAGE.to(dtype))
    assert {out.dtype for out in low} == {dtype}
    assert_all_near([out.float() for out in low], expected, tolerance)
    assert_all_near([out.float() for out in mixed], expected, tolerance)


@every_net
@both_forms
def test_channels_last(name, deploy):
    net = make(name, deploy)
    with torch.no_grad():
        expected = net(IMAGE)
        net = net.to(memory_format=torch.channels_last)
        image = IMAGE.to(memory_format=torch.channels_last)
        assert_all_near(net(image), expected)
    sum(out.square().mean() for out in net.train()(image)).backward()
    assert all(p.grad is not None for p in net.parameters())
