"""Training curves out of mmengine's logs, through the tool."""
import json

import pytest
from helpers import ROOT
from PIL import Image
from processes import run_fresh
from tasks import runner_of, training

from shiftwise_mm.analysis.curves import choose_keys, read_run
from shiftwise_mm.cli.plot_curves import _labelled, main


def write(folder, records, tail=''):
    """A log as mmengine writes it, a record a line."""
    file = folder / 'vis_data/scalars.json'
    file.parent.mkdir(parents=True)
    file.write_text('\n'.join(map(json.dumps, records)) + '\n' + tail)
    return folder


def train(step, loss, **more):
    return dict(lr=1e-3 / step, loss=loss, loss_cls=loss / 2, time=.1,
                iter=step, step=step, **more)


def val(value, step=0):
    return {'coco/bbox_mAP': value, 'coco/bbox_mAP_l': -1., 'time': 1.,
            'step': step}


@pytest.fixture
def resumed(tmp_path):
    """Stopped at 50, after its checkpoint of 40, and continued from that."""
    write(tmp_path / 'run/20260101_000000',
          [train(10, 5.), train(20, 4.), val(.1), train(40, 3.), val(.2),
           train(50, 2.9)], '{"loss": 2.8, "it')
    write(tmp_path / 'run/20260102_000000',
          [train(50, 2.5), train(60, 2.), val(.25), val(.3)])
    write(tmp_path / 'run/20260103_000000', [val(.9)])  # a validation
    (tmp_path / 'run/20260104_000000/vis_data').mkdir(parents=True)
    (tmp_path / 'run/20260104_000000/vis_data/scalars.json').touch()
    return tmp_path / 'run'


def test_a_resumed_run_is_one_curve(resumed):
    found = read_run(resumed)
    assert found.points('loss') == [(10, 5.), (20, 4.), (40, 3.), (50, 2.5),
                                    (60, 2.)]
    assert found.points('coco/bbox_mAP') == [(20, .1), (40, .2), (60, .3)]
    assert (found.parts, found.iterations) == (2, 60)
    part = read_run(resumed / '20260101_000000')
    assert part.points('loss')[-1] == (50, 2.9)
    assert part.points('loss') == read_run(
        resumed / '20260101_000000/vis_data/scalars.json').points('loss')


def test_a_run_begun_anew_replaces_the_old_one(resumed):
    write(resumed / '20260105_000000', [train(10, 9.)])
    found = read_run(resumed)
    assert found.points('loss') == [(10, 9.)] and not found.metrics


def test_epochs_and_iterations_of_validation(tmp_path):
    """A log by epoch: the step of a validation is the epoch."""
    write(tmp_path, [train(25, 1., epoch=1), val(.1, 1), train(50, .9,
                                                               epoch=2),
                     val(.2, 2)])
    assert read_run(tmp_path).points('coco/bbox_mAP') == [(25, .1), (50, .2)]
    other = write(tmp_path / 'iters', [train(20, 1.), val(.1, 30)])
    assert read_run(other).points('coco/bbox_mAP') == [(30, .1)]


def test_what_is_shown(resumed):
    runs = dict(a=read_run(resumed))
    assert choose_keys(runs) == ['loss', 'loss_cls', 'lr', 'coco/bbox_mAP']
    assert choose_keys(runs, ['bbox_m*', 'l*s']) == [
        'coco/bbox_mAP', 'loss', 'loss_cls']
    with pytest.raises(ValueError, match="called 'IoU'; there are lr, loss"):
        choose_keys(runs, ['IoU'])


def test_a_log_of_a_run_of_ours(tmp_path):
    """Trained, and resumed, by mmengine's Runner itself."""
    options = dict(visualizer=dict(
        type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]))
    for steps in 2, 4:
        config = training('classifier', steps)
        config['default_hooks']['logger'] = dict(type='LoggerHook',
                                                 interval=1)
        runner = runner_of('classifier', tmp_path / 'run', **config,
                           **options, resume=steps > 2)
        runner.train()
        runner.visualizer.close()
    found = read_run(tmp_path / 'run')
    assert [step for step, _ in found.points('loss')] == [1, 2, 3, 4]
    assert choose_keys(dict(run=found)) == ['loss', 'lr']


def test_the_tool_draws_several_runs(resumed, tmp_path):
    other = write(tmp_path / 'other', [train(i, 4 / i) for i in range(1, 90)])
    out = tmp_path / 'curves.png'
    done = run_fresh(ROOT / 'tools/plot_curves.py', resumed,
                     f'second try={other}', '--out', out, '--smooth', 5)
    assert done.returncode == 0, done.stderr
    assert Image.open(out).size[0] > 800
    assert '| run        | 60         | 2     | 2 ' in done.stdout
    assert '| second try | 89 ' in done.stdout
    assert not list(tmp_path.glob('.*'))


def test_runs_are_called_by_what_tells_them_apart():
    assert list(_labelled(['a/x', 'b/x', 'c=b/x/', 'd/y/vis_data'])) == [
        'a/x', 'b/x', 'c', 'y']


@pytest.mark.parametrize('make, words', [
    (lambda base: [base / 'missing'], 'missing does not exist'),
    (lambda base: [base], 'there are runs in it: {base}/run'),
    (lambda base: [base / 'empty'], 'holds no vis_data/scalars.json'),
    (lambda base: [base / 'none.json'], 'nothing was logged yet'),
    (lambda base: [base / 'torn.json'], 'torn.json, line 1: no JSON'),
    (lambda base: [base / 'coco.json'], 'not a record of mmengine'),
    (lambda base: [base / 'run', '--keys', 'x'], "called 'x'"),
    (lambda base: [base / 'run', '--smooth', '0'], 'smooth'),
    (lambda base: [f'a={base}/run', f'a={base}/run'], 'must differ'),
    (lambda base: [base / 'run', '--out', base / 'no/x.png'], 'no/'),
    (lambda base: [base / 'run', '--smooth', 'x'], '--smooth'),
])
def test_wrong_arguments_are_one_line(make, words, resumed, tmp_path, capsys):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'none.json').write_text('\n')
    (tmp_path / 'torn.json').write_text('{"a\n' + json.dumps(train(1, 1.)))
    (tmp_path / 'coco.json').write_text('{"info": 1}\n{}')
    args = list(map(str, make(tmp_path)))
    with pytest.raises(SystemExit) as caught:
        main(['--out', str(tmp_path / 'x.png'), *args])
    err = capsys.readouterr().err
    assert caught.value.code == 2
    assert err.startswith('plot_curves: ') and err.count('\n') == 1
    assert words.format(base=tmp_path) in err
    assert not (tmp_path / 'x.png').exists()
