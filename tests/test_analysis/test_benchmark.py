"""tools/benchmark.py as its user runs it, at tiny shapes."""
import importlib.util
import json

import pytest
from helpers import ROOT
from published import MINI

from shiftwise_mm.analysis.benchmark import (
    contestants,
    networks,
    op,
    strategies,
    table2,
)
from shiftwise_mm.models import ConvNeXt, ShiftWiseNet, SLaK, UniRepLKNet

FAST = ('--repeats', 1, '--peak-size', 16)


def tool():
    spec = importlib.util.spec_from_file_location(
        'benchmark_tool', ROOT / 'tools/benchmark.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(tmp_path, *args):
    """What a run writes to its file."""
    file = tmp_path / 'out.json'
    tool().main([*map(str, (*args, *FAST)), '--json', str(file)])
    return json.loads(file.read_text())


@pytest.fixture
def no_compiler(monkeypatch):
    """It takes half a minute; a test of its own has it."""
    monkeypatch.setattr(contestants.torch, 'compile', _fail)


def _fail(*args, **kwargs):
    raise RuntimeError('no compiler here\nand more')


def test_op(tmp_path, capsys, no_compiler):
    content = run(tmp_path, 'op', '--shape', 1, 2, 9, 7, '--kernel', 7, 3,
                  '--reps', 2, '--threads', 1)
    printed = capsys.readouterr().out
    operator, shift = content['tables']
    names = {row['contestant'] for row in operator['rows']}
    assert names >= {'ours, auto', 'ours, strip', 'ours, shift',
                     contestants.GROUPED, contestants.PUBLISHED,
                     *strategies.STRATEGIES, *contestants.DENSE}
    assert {row['contestant'] for row in shift['rows']} == {
        'ours, taichi', contestants.PUBLISHED, *strategies.STRATEGIES}
    for row in operator['rows']:
        assert row['forward ms'] > 0 and row['fwd+bwd ms'] > 0
        assert row['% GMAC/s'] > 0 and row['% GB/s'] > 0
        shifts = row['contestant'] in (*strategies.STRATEGIES,
                                       contestants.PUBLISHED)
        assert (row['shift share'] is not None) == shifts
        assert f'| {row["contestant"]} ' in printed
    slicing = next(row for row in operator['rows']
                   if row['contestant'] == 'slicing')
    assert slicing['x'] == 1
    assert any('torch.compile of slicing is left out: no compiler here' ==
               note for note in operator['notes'])
    assert content['goals'] == []  # not the shapes that they name
    facts = content['provenance']
    assert facts['torch'] and facts['threads'] == 1 and facts['device']
    assert not any('date' in key or 'time' in key for key in facts)
    assert content['peaks']['macs'] > 0


def test_goals_of_the_operator(tmp_path, capsys, monkeypatch, no_compiler):
    cases = (((1, 2, 9, 7), 7, 3, 4), ((1, 2, 9, 7), 7, 5, 1))
    shifts = ((*cases[1], ('h', )), ((1, 2, 9, 7), 7, 5, 4, ('h', 'v', 'i')))
    monkeypatch.setattr(op, 'CASES', cases)
    monkeypatch.setattr(op, 'SHIFTS', shifts)
    content = run(tmp_path, 'op', '--rows', 'auto', 'slicing', 'dense',
                  'taichi')
    goals = content['goals']
    assert [(g['name'], g['asked']) for g in goals] == [
        ('P1', 28), ('P1', 1.3), ('P2', 300), ('P2', 1.2), ('P3', 25),
        ('P3', 10), ('P8', 4), ('P8', 2)]

    def times(table, name, column='forward ms'):
        return next(row[column] for row in content['tables'][table]['rows']
                    if row['contestant'] == name)

    assert goals[0]['measured'] == pytest.approx(
        times(0, 'slicing') / times(0, 'ours, auto'))
    best = min(times(1, name, 'fwd+bwd ms') for name in contestants.DENSE)
    assert goals[5]['measured'] == pytest.approx(
        best / times(1, 'ours, auto', 'fwd+bwd ms'))
    assert goals[6]['measured'] == pytest.approx(
        times(2, contestants.PUBLISHED) / times(2, 'ours, taichi'))
    lines = [line for line in capsys.readouterr().out.splitlines()
             if line.startswith('goal ')]
    assert len(lines) == 8 and '28x asked' in lines[0]


@pytest.mark.parametrize('wrong', ['outputs', 'gradients'])
def test_no_figure_when_one_differs(wrong, capsys, monkeypatch, no_compiler):

    def shift(spec, outputs, size, device):
        right = strategies.slicing(spec, outputs, size, device)
        if wrong == 'outputs':
            return lambda y: right(y.roll(1, 3))
        return lambda y: right(y.detach() + y.sum() - y.sum().detach())

    monkeypatch.setitem(strategies.STRATEGIES, 'torch.roll', shift)
    with pytest.raises(SystemExit) as stop:
        tool().main([*map(str, ('op', '--shape', 1, 2, 9, 7, '--kernel', 7,
                                3, *FAST))])
    assert stop.value.code == 1
    printed = capsys.readouterr()
    assert printed.out == ''
    assert printed.err.startswith('benchmark: torch.roll: ')
    assert printed.err.count('\n') == 1


def test_table1(tmp_path, no_compiler):
    content = run(tmp_path, 'table1', '--shape', 9, 7, '--channels', 2,
                  '--kernel', 11, 5, '--batch', 2)
    table, = content['tables']
    rows = {row['row']: row for row in table['rows']}
    assert rows['implicit-GEMM depthwise']['forward ms'] is None
    assert rows['+ Taichi shift']['published forward ms'] == 31.9
    assert rows['+ Taichi shift']['published backward ratio'] == \
        pytest.approx(46.8 / 24.8)
    depthwise = rows['torch depthwise']
    assert depthwise['forward ratio'] == depthwise['backward ratio'] == 1
    ours = rows['ours, auto']
    assert ours['forward ratio'] == pytest.approx(
        ours['forward ms'] / depthwise['forward ms'])
    assert 'ours, strip' in rows and ours['published forward ms'] is None
    assert '(2, 2, 9, 7)' in table['title']


def test_table3(tmp_path, no_compiler):
    content = run(tmp_path, 'table3', '--shape', 9, 7, '--channels', 3,
                  '--kernel', 11, 5, '--batch', 1)
    table, = content['tables']
    rows = {(row['row'], row['density']): row for row in table['rows']}
    sparse = rows['shift-wise, density 0.25 (ours, auto)', .25]
    assert sparse['published forward ratio'] == pytest.approx(7.02 / 11.85)
    base = rows['depthwise 51x5', 1]['forward ms']
    assert sparse['forward ratio'] == pytest.approx(
        sparse['forward ms'] / base)
    for form in ('strip', 'fused'):
        row = rows[f'ours, {form}', .25]
        assert row['of itself dense'] == pytest.approx(
            row['forward ms'] / rows[f'ours, {form}', 1]['forward ms'])
    assert content['goals'] == []  # not the shape that it names


@pytest.fixture
def mini_stages(monkeypatch):
    monkeypatch.setattr(table2, 'STAGES', tuple(
        table2.Stage(channels, large, density, blocks, number)
        for number, (channels, large, density, blocks) in enumerate(
            ((3, 23, .25, 1), (2, 11, .5, 2)))))


def test_table2(tmp_path, mini_stages, monkeypatch):
    masks = []
    conv = contestants.shiftwise_conv

    def watched(*args, mask, **kwargs):
        masks.append(None if mask is None else int(mask.sum()))
        return conv(*args, mask=mask, **kwargs)

    monkeypatch.setattr(contestants, 'shiftwise_conv', watched)
    content = run(tmp_path, 'table2', '--shape', 56, 56, '--batch', 1)
    assert set(masks) == {None, 4, 3}  # of 3 * 5 and of 2 * 3 taps
    for table, kind in zip(content['tables'], ('forward', 'backward'),
                           strict=True):
        assert kind in table['title']
        *rows, total = table['rows']
        assert ['(1, 3, 56, 56)' in rows[0]['layer'],
                '(1, 2, 28, 28)' in rows[1]['layer']] == [True, True]
        for row in (*rows, total):
            assert row['of torch'] == pytest.approx(
                row['sparse ms'] / row['torch ms'])
            assert row['of dense'] == pytest.approx(
                row['sparse ms'] / row['dense ms'])
        for name in ('torch ms', 'dense ms', 'sparse ms'):
            assert total[name] == pytest.approx(
                rows[0][name] + 2 * rows[1][name])
    (first, *_, total), (step, *_) = (t['rows'] for t in content['tables'])
    assert [(g['name'], g['asked'], g['measured'])
            for g in content['goals']] == [
        ('P9', .3, first['of torch']),
        ('P9', .45, first['fused of itself dense']),
        ('P9', .55, pytest.approx(total['of torch'])),
        ('P9', .1, step['of torch'])]
    chosen = run(tmp_path, 'table2', '--rows', 'stage 1', '--shape', 20, 14)
    assert '(4, 2, 10, 7)' in chosen['tables'][0]['rows'][0]['layer']
    assert len(chosen['tables'][0]['rows']) == 2 and chosen['goals'] == []


@pytest.fixture
def mini_networks(monkeypatch):
    scale = dict(layer_scale_init_value=.5, norm_out=False)
    monkeypatch.setattr(networks, 'FAMILIES', {
        'SW-T': lambda **o: ShiftWiseNet(MINI, **scale, **o),
        'SW-S': lambda **o: ShiftWiseNet(MINI, num_paths=1, **scale, **o),
        'SLaK-T': lambda **o: SLaK(MINI, **scale, **o),
        'UniRepLKNet-T': lambda **o: UniRepLKNet(
            dict(**MINI, kernel_sizes=(3, (13, 5), 7, 9)), **scale, **o),
        'ConvNeXt-T': lambda **o: ConvNeXt(MINI, **scale, **o),
        'Swin-T (mmdet)': _no_mmdet,
    })
    monkeypatch.setattr('shiftwise_mm.analysis.benchmark.model.FAMILIES',
                        networks.FAMILIES)
    # Its process would make the networks of the tables.
    monkeypatch.setattr('shiftwise_mm.analysis.benchmark.model.step_memory',
                        lambda entry, **how: 1000 * how['batch'])


def _no_mmdet(**options):
    raise ImportError('mmdet is not there')


def test_model(tmp_path, capsys, mini_networks, monkeypatch):
    monkeypatch.setattr('shiftwise_mm.analysis.benchmark.model.SIZES',
                        (((64, 96), 2, 2), ))
    monkeypatch.setattr('shiftwise_mm.analysis.benchmark.model.LARGE', 1)
    content = run(tmp_path, 'model')
    inference, step = content['tables']
    assert [row['network'] for row in step['rows']] == [
        e.name for e in networks.ENTRIES
        if e.how == 'training form' and 'Swin' not in e.name]
    assert [row['network'] for row in inference['rows']] == [
        e.name for e in networks.ENTRIES
        if not e.with_cp and 'Swin' not in e.name]
    for row in (*inference['rows'], *step['rows']):
        assert row['ms'] == min(row['contiguous ms'],
                                row['channels_last ms'])
        assert row['GMAC'] > 0 and row['% GMAC/s'] > 0 and row['% GB/s'] > 0
    assert {row['peak MB'] for row in step['rows']} == {.002}
    assert 'Swin-T (mmdet) is left out: mmdet is not there' in \
        inference['notes']
    assert 'SW-T, deployed' in capsys.readouterr().out


@pytest.mark.parametrize('shape, images', [((64, 96), (1, 2)),
                                           ((96, 64), (4, 8))], ids=str)
def test_a_shape_of_the_tables_has_their_images(shape, images, tmp_path,
                                                mini_networks, monkeypatch):
    monkeypatch.setattr('shiftwise_mm.analysis.benchmark.model.SIZES',
                        (((64, 64), 4, 8), ((64, 96), 1, 2)))
    content = run(tmp_path, 'model', '--shape', *shape, '--rows', 'ConvNeXt')
    inference, step = content['tables']
    assert {row['batch'] for row in inference['rows']} == {images[0]}
    assert {row['batch'] for row in step['rows']} == {images[1]}


def test_goals_of_the_networks():
    from shiftwise_mm.analysis.benchmark.model import Outcome
    from shiftwise_mm.analysis.benchmark.model_goals import model_goals
    from shiftwise_mm.analysis.benchmark.timing import Timing

    def outcome(batch, seconds, memory=None):
        return Outcome(batch, None, {
            'contiguous': Timing(seconds, 0, 0, 1),
            'channels_last': Timing(9 * seconds, 0, 0, 1)},
            {'contiguous': memory, 'channels_last': 1})

    Entry = networks.Entry
    inference = {
        Entry('SW-T', 'deployed'): outcome(4, 2.),
        Entry('UniRepLKNet-T', 'deployed', True): outcome(4, 5.),
        Entry('UniRepLKNet-T', 'deployed'): outcome(4, 3.),
        Entry('SLaK-T', 'training form', True): outcome(4, 8.),
    }
    step = {
        Entry('SW-T', 'training form'): outcome(8, 2., 70),
        Entry('UniRepLKNet-T', 'training form', True): outcome(8, 3., 100),
    }
    goals = model_goals((224, 224), inference, step)
    assert [(g.name, g.asked, g.measured) for g in goals] == [
        ('P4', 1.2, 2.5), ('P4', 1., 1.5), ('P5', 2.5, 4.), ('P6', 1.4, 1.5),
        ('P7', .8, .7)]
    assert goals[-1].met
    assert model_goals((224, 225), inference, step) == []
    step = {Entry('SW-T', 'training form', with_cp=True): outcome(
        2, 2., int(9e9))}
    goal, = model_goals((800, 1344), {}, step)
    assert (goal.name, goal.measured, goal.met) == ('P10', 9., False)


@pytest.mark.slow
def test_the_networks_of_the_tables(tmp_path):
    content = run(tmp_path, 'model', '--shape', 64, 64, '--batch', 2,
                  '--rows', 'SW-T', 'SLaK', 'UniRep', 'ConvNeXt',
                  'Swin')
    names = {row['network'] for row in content['tables'][0]['rows']}
    assert {n.split(',')[0] for n in names} >= {
        'SW-T', 'SLaK-T', 'UniRepLKNet-T', 'ConvNeXt-T', 'Swin-T (mmdet)'}


def test_a_composition_that_differs_is_named(capsys, mini_networks,
                                             monkeypatch):
    def wrong(network):
        network.downsample_layers[0][1].eps = .5
        return network

    monkeypatch.setattr(networks, 'compose_as_published', wrong)
    with pytest.raises(SystemExit) as stop:
        tool().main([*map(str, ('model', '--shape', 64, 64, '--batch', 2,
                                '--rows', 'UniRep', *FAST))])
    assert stop.value.code == 1
    assert 'UniRepLKNet-T, training form, published composition' in \
        capsys.readouterr().err


@pytest.mark.parametrize('rows, small', [
    # Taichi compiles kernels of one place in a third of the time.
    (('--rows', 'H*W', 'density', 'threads'), 1),
    pytest.param((), 3, marks=pytest.mark.slow)], ids=['some axes', 'all'])
def test_scaling(rows, small, tmp_path):
    content = run(tmp_path, 'scaling', '--shape', 1, 2, 9, 7, '--kernel', 9,
                  small, '--reps', 2, '--threads', 1, *rows)
    tables = {table['title'].split()[2].rstrip(','): table['rows']
              for table in content['tables']}
    assert list(tables) == list(
        rows[1:] or ('B', 'C', 'H*W', 'k', 'reps', 'density', 'threads'))
    auto = [row for row in tables['H*W'] if row['form'] == 'ours, auto']
    assert [row['H*W'] for row in auto] == [63, 126, 252]
    assert auto[0]['a unit'] == 1
    assert auto[1]['a unit'] == pytest.approx(
        auto[1]['forward ms'] / auto[0]['forward ms'] / 2)
    assert [row['density'] for row in tables['density']
            if row['form'] == 'ours, auto'] == [.05, .125, .25, .5, .75, 1.]
    assert [g['name'] for g in content['goals']] == \
        ['P10'] * (2 if rows else 6)


def test_scaling_of_chosen_axes(tmp_path):
    content = run(tmp_path, 'scaling', '--shape', 1, 2, 9, 7, '--kernel', 9,
                  3, '--rows', 'b', '--batch', 2)
    table, = content['tables']
    assert sorted({row['B'] for row in table['rows']}) == [2, 4, 8]


@pytest.mark.parametrize('args, message', [
    ((), 'required'),
    (('op', '--shape', 1, 2, 0, 7), "'0'"),
    (('op', '--seconds', 'nan'), "'nan'"),
    (('op', '--density', 2, '--shape', 1, 2, 9, 7), 'density'),
    (('op', '--shape', 1, 2, 9, 7, '--kernel', 7, 4), 'odd'),
    (('op', '--shape', 1, 2, 9, 7, '--rows', 'nobody'), "'nobody'"),
    (('op', '--device', 'tpu'), "'tpu'"),
    (('op', '--device', 'cuda:77'), 'cuda:77'),
    (('model', '--rows', 'nobody'), "'nobody'"),
    (('scaling', '--rows', 'Q'), "'Q'"),
    (('scaling', '--threads', 'many'), "'many'"),
    (('table1', '--channels', -1), "'-1'"),
    (('table2', '--rows', 'stage 9'), "'stage 9'"),
], ids=str)
def test_bad_input_is_one_line(args, message, capsys):
    with pytest.raises(SystemExit) as stop:
        tool().main([*map(str, args),
                     *(('--peak-size', '16') if args else ())])
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ''
    assert printed.err.startswith('benchmark: ')
    assert printed.err.count('\n') == 1 and message in printed.err
