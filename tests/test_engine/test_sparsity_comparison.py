"""Dense and sparse trainings side by side, through the tool."""
import json

import pytest
import torch
from helpers import ROOT, copy_as_ade20k
from processes import run_forked, run_fresh

from shiftwise_mm.datasets import make_shapes_dataset
from shiftwise_mm.engine import demo, demo_seg
from shiftwise_mm.engine.sparsity_comparison import (
    Result,
    Run,
    Settings,
    read_folder,
    run_all,
    runs_of,
)
from shiftwise_mm.engine.sparsity_comparison_report import _accuracies
from shiftwise_mm.engine.sparsity_report import report_file

ARGS = ('--iters', 2, '--seconds', .01, '--out', 'out')


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'shapes'
    make_shapes_dataset(root, num_train=6, num_val=4, image_size=(96, 64))
    return root


@pytest.fixture(scope='module')
def masks(shapes, tmp_path_factory):
    """The same in the layout of ADE20K."""
    root = tmp_path_factory.mktemp('data') / 'masks'
    return copy_as_ade20k(shapes, root)


def run_tool(*args, cwd, run=run_forked):
    return run(ROOT / 'tools/compare_sparsity.py', *args, cwd=cwd)


def refusal(done):
    """The one line of a tool that does not begin."""
    *others, line = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith('compare_sparsity: ')
    # Other packages warn of each other.
    assert not any('compare_sparsity' in x or 'Trace' in x for x in others)
    return line


def table(text, title):
    """Rows of a table in Markdown, by column."""
    lines = text.partition(f'### {title}')[2].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip('|').split('|')]
            for line in lines[:lines.index('')]]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def weights(folder):
    file, = folder.glob('iter_*.pth')
    return torch.load(file)['state_dict']


@pytest.mark.slow
def test_the_tool_as_its_user_runs_it(shapes, tmp_path):
    args = (shapes, '--sparsity', .6, '--seeds', 1, *ARGS)
    done = run_tool(*args, cwd=tmp_path, run=run_fresh)
    assert done.returncode == 0, done.stderr[-3000:]
    text = (tmp_path / 'out/comparison.md').read_text()
    assert text in done.stdout and text.count('\n## ') == 1
    folders = {name: tmp_path / f'out/shapes/{name}_seed1'
               for name in ('dense', 'sparse0.6')}
    results = {name: json.loads((folder / 'result.json').read_text())
               for name, folder in folders.items()}
    assert results['sparse0.6']['made_by'] == dict(
        sparsity=.6, seed=1, small_kernel=5, max_iters=2)
    # What the table says is in the files.
    for row, name in zip(table(text, 'Accuracy'), results, strict=True):
        assert row['training'].replace(' ', '') == name
        for metric in ('AP', 'AP50'):
            assert row[metric] == f'{results[name]["metrics"][metric]:.4f}'
    report = report_file(folders['sparse0.6'] / 'iter_2.pth')
    assert {s.small_kernel for s in report.tap_sets} == {5}
    rows = {row['share']: row for row in table(text, 'Small kernels kept')}
    assert rows['density']['all'] == '0.40'
    kept = torch.cat([s.kept.flatten() for s in report.stages['stage2']])
    assert rows['density']['stage2'] == f'{kept.float().mean():.2f}'
    assert [(row['training'], row['form']) for row in
            table(text, 'Inference of the backbone, one image of 96x64')] == [
        (training, form) for training in ('dense', 'sparse 0.6')
        for form in ('training form', 'deployed')]
    # A run that is there is not made again; one without a result is, and is
    # the same without the run that the first process made before it.
    before = weights(folders['sparse0.6'])
    (folders['sparse0.6'] / 'result.json').unlink()
    written = (folders['dense'] / 'iter_2.pth').stat().st_mtime_ns
    done = run_tool(*args, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (folders['dense'] / 'iter_2.pth').stat().st_mtime_ns == written
    after = weights(folders['sparse0.6'])
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    # Each run logs in its own folder.
    for folder in folders.values():
        logs = list(folder.glob('*/vis_data/scalars.json'))
        assert logs and all(file.read_text().count('"step": 2') == 1
                            for file in logs)
    # Other settings are not mixed with these.
    done = run_tool(*args, '--small-kernel', 3, cwd=tmp_path)
    line = refusal(done)
    assert "'small_kernel': 5" in line and 'dense_seed1' in line


def test_segmentation(masks, tmp_path):
    done = run_tool(masks, '--sparsity', .3, '--seeds', 0, *ARGS,
                    cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    text = (tmp_path / 'out/comparison.md').read_text()
    assert [row['mIoU'] for row in table(text, 'Accuracy')] == [
        '{:.4f}'.format(json.loads(
            (tmp_path / f'out/masks/{name}_seed0/result.json').read_text()
        )['metrics']['mIoU']) for name in ('dense', 'sparse0.3')]
    row = table(text, 'Small kernels kept')[0]
    assert row['training'] == 'sparse 0.3' and row['all'] == '0.70'


@pytest.mark.parametrize('data, make, factor, iters, name', [
    ('shapes', demo.demo_config, demo.OWN_DATA_FACTOR, 1000, 'run_demo'),
    ('masks', demo_seg.demo_seg_config, demo_seg.OWN_DATA_FACTOR, 700,
     'run_demo_seg')], ids=['boxes', 'masks'])
def test_runs_are_those_of_the_demo(data, make, factor, iters, name, tmp_path,
                                    monkeypatch, request):
    """But for kernel and seeds: the same budget, whatever the sparsity."""
    seen = []

    def train(cfg):
        seen.append(cfg)
        (tmp_path / data).mkdir(exist_ok=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(f'shiftwise_mm.engine.sparsity_comparison.{name}',
                        train)
    folder = read_folder(request.getfixturevalue(data))
    for sparsity in (None, .4):
        run = Run(sparsity, 7)
        with pytest.raises(KeyboardInterrupt):
            next(run_all(folder, [run], Settings(3), tmp_path))
        expected = make(
            folder, sparse=sparsity, iters_factor=factor,
            work_dir=str(tmp_path / data / run.name))
        cfg = seen.pop()
        assert cfg.train_cfg.max_iters == iters
        assert cfg.pop('experiment_name') == cfg.visualizer.pop('name')
        expected.visualizer.pop('name')
        expected.model.backbone.small_kernel = 3
        expected.randomness.seed = 7
        if sparsity:
            expected.custom_hooks[-1].seed = 7
        assert cfg.to_dict() == expected.to_dict()


def test_the_first_seed_of_each_comes_first():
    runs = runs_of([.4, .7], [0, 2])
    assert [(r.sparsity, r.seed) for r in runs] == [
        (None, 0), (.4, 0), (.7, 0), (None, 2), (.4, 2), (.7, 2)]
    assert runs[1].name == 'sparse0.4_seed0' and runs[3].label == 'dense'


@pytest.mark.parametrize('values, place', [
    ([.5, .61], 'within'), ([.3, .49], 'below'), ([.7, .6], 'above'),
    ([.4, .6], 'within')])
def test_the_mean_is_seen_from_the_range_of_dense(values, place):
    def results(label, values):
        sparsity = None if label == 'dense' else .4
        return [Result(Run(sparsity, i), {'mIoU': value}, None, {})
                for i, value in enumerate(values)]

    row = _accuracies({
        label: results(label, v) for label, v in (
            ('dense', [.5, .4, .6]), ('sparse 0.4', values))}).rows[1]
    assert row['mIoU against dense'] == place
    mean = sum(values) / 2
    assert row['mIoU'] == f'{mean:.4f} ({min(values):.4f} - ' \
        f'{max(values):.4f})'


@pytest.mark.parametrize('args, words', [
    (('--sparsity', 1), ('sparsity', '[0, 1)', '1.0')),
    (('--sparsity', .4, .4), ('sparsity', 'different')),
    (('--seeds', -1), ('seeds', '-1')),
    (('--small-kernel', 4), ('small_kernel', 'odd', '4')),
    (('--iters', 0), ('max_iters', '0')),
    (('--seconds', 0), ('seconds', '0')),
    (('missing', ), ('missing', 'exist')),
])
def test_bad_options_are_one_line(args, words, shapes, tmp_path):
    line = refusal(run_tool(shapes, *args, cwd=tmp_path))
    assert all(word in line for word in words), line
    assert not list(tmp_path.iterdir())
