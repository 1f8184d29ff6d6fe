"""The report on a checkpoint, as its user gets it."""
import re

import cv2
import pytest
import torch
from golden import read_golden
from helpers import ROOT, shared_path
from processes import run_forked, run_fresh
from published import classifier, make, published_file
from sparse import train

from shiftwise_mm.engine.sparsity_report import report_file
from shiftwise_mm.models import ShiftWiseNet
from shiftwise_mm.sparsity import find_targets


def run_tool(*args, cwd='.', run=run_forked):
    return run(ROOT / 'tools/sparsity_report.py', *args, cwd=cwd)


def prune(net, density, granularity='tap', seed=0):
    """Masks at random; returns the share kept by stage."""
    generator, kept = torch.Generator().manual_seed(seed), {}
    for target in find_targets(net, granularity):
        target.set_flags(torch.rand(
            target.flags().shape, generator=generator) < density)
        kept.setdefault(target.stage, []).append(target.flags().flatten())
    return {stage: torch.cat(flags).float().mean().item()
            for stage, flags in kept.items()}


def densities_in(text):
    """By stage, from the first table."""
    rows = [[cell.strip() for cell in line.strip('|').split('|')]
            for line in text.partition('### By stage')[2].splitlines()[2:]]
    head = rows[0]
    rows = rows[2:rows.index([''])]
    column = head.index('density')
    return {row[0]: float(row[column]) for row in rows if row[0] != 'all'}


def test_the_tool_as_its_user_runs_it(tmp_path):
    net = make('v2')
    kept = prune(net, .4)
    torch.save(dict(state_dict={
        f'backbone.{name}': value for name, value in net.state_dict().items()
    } | {'neck.convs.0.weight': torch.ones(2, 2, 1, 1)}),
        tmp_path / 'detector.pth')
    done = run_tool('detector.pth', '--out', 'out', cwd=tmp_path,
                    run=run_fresh)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ''
    assert densities_in(done.stdout) == {
        stage: round(density, 4) for stage, density in kept.items()}
    assert '5 masks' in done.stdout
    written = tmp_path / 'out'
    assert (written / 'sparsity.md').read_text() == done.stdout
    names = re.findall(r'!\[.+\]\((.+\.png)\)', done.stdout)
    assert sorted(p.name for p in written.iterdir()) == sorted(
        ['sparsity.md', *names]) and len(names) == 2
    for name in names:
        height, width, _ = cv2.imread(str(written / name)).shape
        assert height > 250 and width > 600
    # Only printed; the pictures that it then has not are not named.
    done = run_tool('detector.pth', cwd=tmp_path)
    assert done.returncode == 0 and '.png' not in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ['detector.pth',
                                                          'out']


@pytest.mark.parametrize('family', ['v2', 'v1', 'slak', 'slak as shiftwise',
                                    'slak gated'])
def test_published_files_by_their_zeros(family, tmp_path):
    """Without masks and tables."""
    net = make(family)
    kept = prune(net, .3, 'weight' if family == 'slak' else 'tap')
    spec = net.stages[1][0].large_kernel.spec
    args = dict(kernel_size=[51, 49, 47, 13, spec.small_kernel])
    if family in ('v1', 'v2'):
        args.update(N_rep=4)
    for part in net.modules():
        if hasattr(part, 'remove_masks'):
            part.remove_masks()
    torch.save(published_file(family, net, **args), tmp_path / 'x.pth')
    report = report_file(tmp_path / 'x.pth')
    text = report.markdown()
    assert 'holds no masks' in text and 'no tables of shifts' in text
    if family != 'slak':
        assert densities_in(text) == {
            stage: round(density, 4) for stage, density in kept.items()}
    assert [report.stages[s][0].large_kernel for s in report.stages] == \
        [51, 49, 47, 13]
    # The tables that the network itself has.
    for found in report.stages['stage1']:
        for direction in found.directions:
            assert torch.equal(found.offsets[direction],
                               spec.tap_offsets(direction))


def test_what_the_file_leaves_open_is_said(tmp_path):
    torch.save(published_file('v2', make('v2')), tmp_path / 'x.pth')
    text = report_file(tmp_path / 'x.pth').markdown()
    assert 'The network is dense' in text
    assert 'kernel_sizes (51, 49, 47, 13) (the file fits ' in text
    assert 'num_reps 4 (not in the file; the published value)' in text
    assert set(densities_in(text).values()) == {1.}


@pytest.mark.parametrize('name', ['sw_v2_as_published.pth',
                                  'slak_as_published.pth'])
def test_files_as_upstream_saves_them(name):
    report = report_file(shared_path('golden', name))
    golden = read_golden(name.replace('_as_published', ''))
    assert [len(sets) for sets in report.stages.values()] == [
        depth * (2 if 'slak' in name else 1)
        for depth in golden['config']['depths']]
    assert 'The network is dense' in report.markdown()


def test_a_classifier(tmp_path):
    net = classifier()
    kept = prune(net, .5)
    torch.save(dict(state_dict=net.state_dict()), tmp_path / 'x.pth')
    assert densities_in(report_file(tmp_path / 'x.pth').markdown()) == {
        stage: round(density, 4) for stage, density in kept.items()}


def test_the_checkpoint_of_a_sparse_training(tmp_path):
    """Densities of the hook's log."""
    runner, _ = train(tmp_path, 4, save=4)
    report = report_file(tmp_path / 'iter_4.pth')
    assert all(s.masked and s.has_tables for s in report.tap_sets)
    shown = densities_in(report.markdown())
    assert shown.keys() == {'stage0', 'stage1'}
    for stage, density in shown.items():
        logged = runner.message_hub.get_scalar(f'train/density_{stage}')
        assert density == pytest.approx(logged.current(), abs=5e-5)


def test_layers_in_another_network(tmp_path):
    """As plugins; their resolution is not known."""
    from shiftwise_mm.models import ShiftWiseConv2d
    layer = ShiftWiseConv2d(6, kernel_size=13, num_paths=1)
    torch.save(dict(state_dict={
        'backbone.conv1.weight': torch.ones(4, 3, 7, 7),
        **{f'backbone.layer3.0.plugin.{name}': value
           for name, value in layer.state_dict().items()}}),
        tmp_path / 'x.pth')
    text = report_file(tmp_path / 'x.pth').markdown()
    assert densities_in(text) == {'layer3': 1.}
    assert 'layer3.0.plugin' in text and 'not a backbone of ours' in text
    assert 'Multiply-adds' not in text


def deployed(path):
    net = ShiftWiseNet(dict(embed_dims=(8, 12), depths=(1, 1)),
                       kernel_sizes=(13, 7), out_indices=(1, ))
    net.eval().switch_to_deploy()
    torch.save(net.state_dict(), path)


def convnext(path):
    torch.save(make('convnext').state_dict(), path)


def other(path):
    torch.save({'conv1.weight': torch.ones(1)}, path)


def half_a_file(path):
    path.write_bytes(b'PK\x03\x04')


@pytest.mark.parametrize('write, words', [
    (deployed, 'deployed'), (convnext, 'ConvNeXt'), (other, 'no layer'),
    (half_a_file, 'x.pth'), (lambda path: None, 'x.pth')],
    ids=['deployed', 'convnext', 'other', 'broken', 'missing'])
def test_errors_are_one_line(write, words, tmp_path):
    write(tmp_path / 'x.pth')
    done = run_tool('x.pth', '--out', 'out', cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr.startswith('sparsity_report: ')
    assert done.stderr.count('\n') == 1 and words in done.stderr
    assert not (tmp_path / 'out').exists()


def test_a_folder_that_cannot_be_made_and_no_file(tmp_path):
    torch.save(make('v2').state_dict(), tmp_path / 'x.pth')
    for args, word in ((('x.pth', '--out', 'x.pth'), 'x.pth'), ((), 'src')):
        done = run_tool(*args, cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith('sparsity_report: ')
        assert done.stderr.count('\n') == 1 and word in done.stderr
