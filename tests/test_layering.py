"""Imports go one way: backbone -> layer -> op -> kernel."""
import ast

import pytest
from helpers import ROOT

# From the lowest; a file may import its own layer and those before it.
LAYERS = [
    'shiftwise_mm.kernels', 'shiftwise_mm.ops', 'shiftwise_mm.registry',
    'shiftwise_mm.checkpoint',
    'shiftwise_mm.models.layers', 'shiftwise_mm.models.backbones',
    'shiftwise_mm.models.heads', 'shiftwise_mm.models.classifiers',
    'shiftwise_mm.models', 'shiftwise_mm.sparsity',
    'shiftwise_mm.visualization',
    'shiftwise_mm.datasets',
    'shiftwise_mm.evaluation', 'shiftwise_mm.analysis', 'shiftwise_mm.swap',
    'shiftwise_mm.engine', 'shiftwise_mm.cli'
]
FILES = sorted([*ROOT.glob('shiftwise_mm/**/*.py'),
                *ROOT.glob('kernels/*.py')])


def module_of(path):
    parts = list(path.relative_to(ROOT).with_suffix('').parts)
    if parts[0] == 'kernels':
        parts.insert(0, 'shiftwise_mm')
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def layer_of(module):
    fitting = [i for i, layer in enumerate(LAYERS)
               if f'{module}.'.startswith(f'{layer}.')]
    return min(fitting, default=None)


def imports_of(path):
    module = module_of(path)
    package = module if path.name == '__init__.py' else \
        module.rpartition('.')[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                above = package.split('.')
                above = above[:len(above) - node.level + 1]
                base = '.'.join([*above, *filter(None, [node.module])])
            yield from (f'{base}.{alias.name}' for alias in node.names)


@pytest.mark.parametrize('path', FILES,
                         ids=[str(f.relative_to(ROOT)) for f in FILES])
def test_no_import_goes_upwards(path):
    own = layer_of(module_of(path))
    if own is None:  # the package itself and its version
        assert path.name in ('__init__.py', 'version.py')
        return
    for name in imports_of(path):
        if name.startswith('shiftwise_mm'):
            other = layer_of(name)
            assert other is None or other <= own, f'{path} imports {name}'


def test_kernels_know_neither_autograd_nor_modules():
    for path in ROOT.glob('kernels/*.py'):
        for name in imports_of(path):
            assert not name.startswith(('torch.nn', 'torch.autograd')), path
            assert not name.startswith('shiftwise_mm.') \
                or name.startswith('shiftwise_mm.kernels'), path


def test_a_kernel_is_five_hops_from_a_config():
    """The chain that a reader follows, each link an import or a type."""
    config = ROOT / 'configs/demo/rtmdet_shiftwise-nano_demo_shapes.py'
    assert "type='shiftwise_mm.ShiftWiseNet'" in config.read_text()
    chain = [('shiftwise_mm/models/backbones/shiftwise_net.py',
              'shiftwise_mm.models.layers.shiftwise_conv2d.ShiftWiseConv2d'),
             ('shiftwise_mm/models/layers/shiftwise_conv2d.py',
              'shiftwise_mm.ops.shiftwise_conv'),
             ('shiftwise_mm/ops/forms.py',
              'shiftwise_mm.ops.shift_kernel.shift_add_taichi'),
             ('shiftwise_mm/ops/shift_kernel.py',
              'shiftwise_mm.kernels.shift_add')]
    for file, target in chain:
        assert target in set(imports_of(ROOT / file)), (file, target)
