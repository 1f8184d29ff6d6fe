"""The tools as their users run them: convert and inspect."""
import re
import runpy

import pytest
import torch
from golden import FILES, backbone_cfg, read_golden
from helpers import ROOT, assert_near, shared_path
from hostile import HOSTILE
from mmengine.config import Config
from processes import run_forked, run_fresh
from published import (
    DEPTHS,
    DIMS,
    FAMILIES,
    MINI,
    classifier,
    make,
    outputs,
    published,
    published_file,
)

from shiftwise_mm.checkpoint import describe, load_pretrained
from shiftwise_mm.engine.checkpoint_files import convert_file, inspect_file
from shiftwise_mm.engine.suggest import suggest_config
from shiftwise_mm.models import ShiftWiseNet, SLaK, UniRepLKNet
from shiftwise_mm.registry import MODELS

every_family = pytest.mark.parametrize('family', FAMILIES)
PUBLISHED = [*FILES, 'sw_v2_as_published.pth', 'slak_as_published.pth']


def run_tool(name, *args, cwd='.', run=run_forked):
    return run(ROOT / 'tools' / f'{name}.py', *args, cwd=cwd)


@pytest.fixture
def tool(capsys):
    """Runs a tool in this process: what it prints, its errors, its code."""

    def call(name, *args):
        main = runpy.run_path(str(ROOT / 'tools' / f'{name}.py'))['main']
        code = 0
        try:
            main([str(arg) for arg in args])
        except SystemExit as error:
            code = error.code
        return (*capsys.readouterr(), code)

    return call


def weights_of(file):
    return torch.load(file)['state_dict']


@pytest.fixture
def file(tmp_path):
    """A published file, with the options of its training."""
    path = tmp_path / 'published.pth'
    torch.save(published_file('v2', make('v2'), N_rep=4,
                              kernel_size=[51, 49, 47, 13, 3]), path)
    return path


def test_convert_as_its_user_runs_it(file, tmp_path):
    done = run_tool('convert_checkpoint', file, 'native.pth', cwd=tmp_path,
                    run=run_fresh)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert 'recognised as ShiftWise v2, published names' in lines[0]
    assert 'outputs differ by at most 0 of the largest' in lines[-2]
    assert lines[-1] == 'wrote native.pth'
    assert sorted(p.name for p in tmp_path.iterdir()) == ['native.pth',
                                                          'published.pth']
    source, native = make('v2'), weights_of(tmp_path / 'native.pth')
    assert set(native) == {
        *(f'backbone.{name}' for name in source.state_dict()),
        'head.norm.weight', 'head.norm.bias', 'head.fc.weight',
        'head.fc.bias'}
    for name, value in source.state_dict().items():
        assert torch.equal(native[f'backbone.{name}'], value), name
    again = run_tool('convert_checkpoint', file, 'native.pth', cwd=tmp_path)
    assert again.returncode == 2
    assert again.stderr == ('convert_checkpoint: native.pth exists; --force '
                            'overwrites it\n')
    forced = run_tool('convert_checkpoint', file, 'native.pth', '--force',
                      '--to', 'deploy', cwd=tmp_path)
    assert forced.returncode == 0
    assert describe(
        {name.removeprefix('backbone.'): value for name, value in weights_of(
            tmp_path / 'native.pth').items()}).deploy


@pytest.mark.parametrize('name', PUBLISHED)
@pytest.mark.parametrize('to', ['native', 'deploy'])
def test_golden_files(name, to, tool, tmp_path):
    golden = read_golden(name.replace('_as_published', ''))
    dst = tmp_path / 'converted.pth'
    # These state their repetitions only in args, which some lack.
    config = tmp_path / 'backbone.py'
    cfg = backbone_cfg(name, golden['config'])
    cfg['type'] = f'shiftwise_mm.{cfg["type"].__name__}'
    config.write_text(f'model = dict(backbone={cfg!r})')
    out, err, code = tool('convert_checkpoint', shared_path('golden', name),
                          dst, '--to', to, '--config', config)
    assert code == 0, err
    parity = float(out.split('differ by at most ')[1].split()[0])
    assert parity == 0 if to == 'native' else 0 < parity < 1e-5
    net = MODELS.build({**cfg, 'deploy': to == 'deploy'}).eval()
    load_pretrained(net, dst)
    with torch.no_grad():
        outs = net(golden['input'])
    for ours, expected in zip(outs, golden['stages'], strict=True):
        assert_near(ours, expected, 1e-5)


@pytest.mark.parametrize('name', ['slak.pth', 'slak_as_published.pth',
                                  'slak_as_shiftwise.pth'])
def test_slak_to_shiftwise(name, tool, tmp_path):
    golden = read_golden('slak.pth')
    dst = tmp_path / 'converted.pth'
    out, err, code = tool('convert_checkpoint', shared_path('golden', name),
                          dst, '--to', 'shiftwise')
    assert code == 0, err
    cfg = backbone_cfg('slak.pth', golden['config'], form='shiftwise')
    net = cfg.pop('type')(**cfg).eval()
    weights = weights_of(dst)
    net.load_state_dict(weights)
    own = net.state_dict()
    assert all(torch.equal(weights[f'backbone.{name}'], value)
               for name, value in own.items())
    # The exact kernels are kept, which its shapes do not tell.
    assert inspect_file(dst).config['kernel_sizes'] == (51, 49, 47, 13)
    assert not inspect_file(dst).remarks


@every_family
def test_weights_without_a_classifier_keep_bare_names(family, tmp_path):
    source = make(family)
    torch.save(source.state_dict(), tmp_path / 'bare.pth')
    convert_file(tmp_path / 'bare.pth', tmp_path / 'native.pth')
    native = weights_of(tmp_path / 'native.pth')
    assert set(native) == set(source.state_dict())


def test_output_norms_are_those_of_the_source(tmp_path):
    source = make('v2', norm_out=True, out_indices=(1, 3))
    torch.save(source.state_dict(), tmp_path / 'bare.pth')
    convert_file(tmp_path / 'bare.pth', tmp_path / 'native.pth')
    native = weights_of(tmp_path / 'native.pth')
    assert set(native) == set(source.state_dict())
    assert all(torch.equal(native[name], value)
               for name, value in source.state_dict().items())


def test_the_rest_of_a_detector_comes_along(tmp_path):
    state = {f'backbone.{name}': value
             for name, value in make('v2').state_dict().items()}
    state['neck.weight'] = torch.ones(3)
    torch.save(dict(state_dict=state), tmp_path / 'detector.pth')
    convert_file(tmp_path / 'detector.pth', tmp_path / 'deploy.pth',
                 to='deploy')
    deployed = weights_of(tmp_path / 'deploy.pth')
    assert torch.equal(deployed['neck.weight'], torch.ones(3))
    net = make('v2', deploy=True)
    net.load_state_dict(deployed)
    for ours, expected in zip(outputs(net), outputs(make('v2')),
                              strict=True):
        assert_near(ours, expected)


def test_what_is_assumed_is_said(tool, tmp_path):
    torch.save(published('v1', make('v1', num_reps=2)), tmp_path / 'v1.pth')
    out, err, code = tool('convert_checkpoint', tmp_path / 'v1.pth',
                          tmp_path / 'native.pth')
    assert code == 0, err
    assert ('assumed kernel_sizes: (51, 49, 47, 13) (the file fits 51 or 53 '
            'or 55, 47 or 49, 47 or 49, 11 or 13 or 15)') in out
    assert ('assumed num_reps: 4 (not in the file; the published value)'
            ) in out
    config = tmp_path / 'config.py'
    config.write_text(f"model = dict(type='shiftwise_mm.ShiftWiseNet', "
                      f"arch={MINI!r}, style='slak', num_reps=2)")
    out, err, code = tool('convert_checkpoint', tmp_path / 'v1.pth',
                          tmp_path / 'native.pth', '--force', '--config',
                          config)
    assert code == 0 and 'assumed num_reps' not in out
    assert inspect_file(tmp_path / 'native.pth').facts.num_reps == 2


CONFIGS = {
    'other.py': "model = dict(backbone=dict(type='shiftwise_mm.ShiftWiseNet',"
                "arch='nano'))",
    'resnet.py': "model = dict(backbone=dict(type='mmdet.ResNet', depth=18))",
    'empty.py': 'x = 1',
    'broken.py': 'model = (',
}


@pytest.mark.parametrize('args, words', [
    (('none.pth', 'd.pth'), 'none.pth'),
    (('no.pth', 'd.pth'), 'no.pth'),
    (('resnet.pth', 'd.pth'), 'resnet.pth is none of ours.*conv1.weight'),
    (('list.pth', 'd.pth'), 'holds a list'),
    (('empty.pth', 'd.pth'), 'empty.pth: no weights.*epoch'),
    (('part.pth', 'd.pth'), 'incomplete ShiftWiseNet|missing'),
    (('v2.pth', 'd.pth', '--to', 'onnx'), "'native', 'deploy', 'shiftwise'.*"
     "'onnx'"),
    (('v2.pth', 'd.pth', '--to', 'shiftwise'), 'SLaK.*ShiftWiseNet'),
    (('v2.pth', 'no/d.pth'), 'no'),
    (('v2.pth', 'd.pth', '--config', 'none.py'), 'none.py'),
    (('v2.pth', 'd.pth', '--config', 'other.py'), 'embed_dims.*depths|depths'),
    (('v2.pth', 'd.pth', '--config', 'resnet.py'), 'ResNet'),
    (('v2.pth', 'd.pth', '--config', 'empty.py'), 'empty.py has no model'),
    (('v2.pth', 'd.pth', '--config', 'broken.py'), 'broken.py'),
], ids=lambda v: ' '.join(v) if isinstance(v, tuple) else '')
def test_bad_input_is_one_line(args, words, tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = published('v2', make('v2'))
    torch.save(state, 'v2.pth')
    torch.save({k: v for k, v in state.items() if 'stages.1' not in k},
               'part.pth')
    torch.save({'conv1.weight': torch.ones(1)}, 'resnet.pth')
    torch.save([1], 'list.pth')
    torch.save(dict(epoch=1), 'empty.pth')
    (tmp_path / 'no.pth').write_bytes(b'no checkpoint')
    for name, text in CONFIGS.items():
        (tmp_path / name).write_text(text)
    before = sorted(p.name for p in tmp_path.iterdir())
    out, err, code = tool('convert_checkpoint', *args)
    assert code == 2 and not out
    assert err.startswith('convert_checkpoint: ') and err.count('\n') == 1
    assert re.search(words, err), err
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    if '--' not in ' '.join(args) and args[1] == 'd.pth':
        out, err, code = tool('inspect_checkpoint', args[0])
        assert code == 2 and not out
        assert err.startswith('inspect_checkpoint: ')
        assert err.count('\n') == 1 and re.search(words, err), err


@pytest.mark.parametrize('name', ['os.system', 'getattr chain',
                                  'function in a history'])
def test_hostile_files(name, tool, tmp_path):
    file = tmp_path / 'hostile.pth'
    torch.save(dict(model=published('v2', make('v2')),
                    payload=HOSTILE[name]()), file)
    for args in (('inspect_checkpoint', file),
                 ('convert_checkpoint', file, tmp_path / 'dst.pth')):
        out, err, code = tool(*args)
        assert code == 2 and not out and err.count('\n') == 1
        assert f'{file} is refused: ' in err
    assert not (tmp_path / 'dst.pth').exists()


def test_a_file_of_other_outputs_is_not_written(file, tmp_path, monkeypatch):
    real = ShiftWiseNet.switch_to_deploy

    def wrong(self):
        real(self)
        self.stages[0][0].large_kernel.strip_h.weight.data *= 2

    monkeypatch.setattr(ShiftWiseNet, 'switch_to_deploy', wrong)
    with pytest.raises(ValueError, match='outputs differ by'):
        convert_file(file, tmp_path / 'dst.pth', to='deploy')
    assert [p.name for p in tmp_path.iterdir()] == ['published.pth']


def snippet_of(text, folder):
    """The config as a user pastes it."""
    lines = text[text.index('backbone=dict('):]
    (folder / 'pasted.py').write_text(f'model = dict(\n{lines})\n')
    return Config.fromfile(folder / 'pasted.py').model.backbone


@pytest.mark.parametrize('native', [False, True])
@every_family
def test_the_snippet_builds_and_loads(family, native, tool, tmp_path):
    source = make(family)
    file = tmp_path / 'file.pth'
    torch.save(dict(state_dict=source.state_dict()) if native else
               published_file(family, source), file)
    out, err, code = tool('inspect_checkpoint', file)
    assert code == 0, err
    backbone = snippet_of(out, tmp_path)
    assert backbone.init_cfg.checkpoint == str(file)
    net = MODELS.build({**backbone, 'norm_out': False})
    net.init_weights()
    for ours, expected in zip(outputs(net), outputs(source), strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize('options', [
    dict(ghost_ratio=.41, num_paths=3, num_reps=2, small_kernel=5,
         kernel_sizes=(21, 19, 33, 5)),
    dict(ghost_ratio=0., layer_scale_init_value=None, in_channels=4),
    dict(style='slak', num_paths=1, num_reps=1, kernel_sizes=(51, 49, 45, 13))
], ids=str)
@pytest.mark.parametrize('deploy', [False, True])
def test_the_snippet_of_other_options(options, deploy, tool, tmp_path):
    source = make('v2', **options)
    if deploy:
        source.switch_to_deploy()
    torch.save(source.state_dict(), tmp_path / 'file.pth')
    out, err, code = tool('inspect_checkpoint', tmp_path / 'file.pth')
    assert code == 0, err
    backbone = snippet_of(out, tmp_path)
    for name in ('num_reps', 'kernel_sizes'):
        if name in options:
            assert backbone[name] == options[name]
    assert backbone.get('deploy', False) == deploy
    net = MODELS.build({**backbone, 'norm_out': False})
    net.init_weights()
    x = torch.randn(1, options.get('in_channels', 3), 64, 64)
    for ours, expected in zip(outputs(net, x), outputs(source, x),
                              strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize('build, expected', [
    (lambda: ShiftWiseNet('nano'), dict(arch='nano', style='unirep')),
    (lambda: ShiftWiseNet('nano', style='slak', width_factor=1.3),
     dict(arch='nano', style='slak', width_factor=1.3)),
    (lambda: SLaK('tiny'), dict(arch='tiny', width_factor=1.3,
                                form='large')),
    (lambda: UniRepLKNet('a'), dict(arch='a'))], ids=range(4))
def test_the_arch_is_guessed(build, expected):
    config, remarks = suggest_config(describe(build().state_dict()))
    assert expected.items() <= config.items() and not remarks


def test_inspect_as_its_user_runs_it(file):
    done = run_tool('inspect_checkpoint', file, run=run_fresh)
    assert done.returncode == 0, done.stderr
    rows = dict(line.split('  ', 1) for line in done.stdout.split(
        '\n\n')[0].splitlines())
    rows = {name.strip(): value.strip() for name, value in rows.items()}
    assert rows == {
        'file': str(file),
        'recognised as': 'ShiftWise v2, published names',
        'weights in': 'model',
        'backbone': 'ShiftWiseNet, unirep, training form',
        'arch': f'none of the published ones: embed_dims {DIMS}, depths '
        f'{DEPTHS}',
        'kernel sizes': '(51, 49, 47, 13)',
        'small kernel': '3, taps (17, 17, 16, 5)',
        'paths': '2',
        'repetitions': '4',
        'ghost ratio': '0.23 (convolved (6, 8, 12, 14))',
        'classifier': '7 classes',
        'density': '1.0000, 1.0000, 1.0000, 1.0000',
    }


def test_inspect_a_sparse_classifier(tmp_path):
    net = classifier()
    for conv in net.backbone.stages[2][0].large_kernel.convs:
        conv.weight.data[::4] = 0
    torch.save(dict(state_dict=net.state_dict()), tmp_path / 'sparse.pth')
    found = inspect_file(tmp_path / 'sparse.pth')
    assert found.densities == (1, 1, .75, 1)
    assert found.facts.num_classes == 7
    assert re.search('weights in +state_dict, prefix backbone.', str(found))
    assert '1.0000, 1.0000, 0.7500, 1.0000' in str(found)


@pytest.mark.parametrize('to', ['native', 'deploy'])
def test_masks_of_sparse_training(to, tmp_path):
    """The zeros are converted, the masks left out."""
    net = make('v2')
    for stage in net.stages:
        for block in stage:
            layer = block.large_kernel
            layer.add_masks('tap')
            mask = torch.ones_like(layer.mask)
            mask[:, 1::2] = False
            layer.set_mask('mask', mask)
    torch.save(dict(state_dict=net.state_dict()), tmp_path / 'sparse.pth')
    inspection = inspect_file(tmp_path / 'sparse.pth')
    kept = [1 - (n // 2) / n for n in (102, 136, 192, 70)]
    assert inspection.densities == pytest.approx(kept)
    conversion = convert_file(tmp_path / 'sparse.pth', tmp_path / 'new.pth',
                              to=to)
    assert conversion.parity < 1e-5
    state = torch.load(tmp_path / 'new.pth')['state_dict']
    assert not any('mask' in name for name in state)
    if to == 'native':
        weight = state['stages.0.0.large_kernel.convs.1.weight']
        assert torch.equal(weight, net.stages[0][0].large_kernel.convs[
            1].weight) and not weight[1::2].any()
