"""Time, memory and counts of the benchmark, on work that is known."""
import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from helpers import run_python

from shiftwise_mm.analysis.benchmark import (
    Budget,
    Goal,
    Settings,
    Table,
    timing,
)
from shiftwise_mm.analysis.benchmark.counts import (
    conv_work,
    network_work,
    shift_work,
)
from shiftwise_mm.analysis.benchmark.machine import Peaks, measure_peaks
from shiftwise_mm.analysis.benchmark.networks import Entry
from shiftwise_mm.analysis.benchmark.report import Report, write_json
from shiftwise_mm.analysis.benchmark.step_memory import step_memory
from shiftwise_mm.analysis.benchmark.timing import Timing, measure
from shiftwise_mm.ops import ShiftSpec

CPU = torch.device('cpu')


def test_repeats_are_interleaved_at_random():
    order = []
    calls = {name: (lambda name=name: order.append(name)) for name in 'abc'}
    times = measure(calls, CPU, Budget(repeats=20))
    warm_up, measured = order[:6], order[6:]
    assert warm_up == list('aabbcc')
    assert sorted(measured) == sorted('abc' * 20)
    changes = sum(a != b for a, b in zip(measured, measured[1:],
                                         strict=False))
    assert 20 < changes < 59  # neither one by one nor a fixed turn
    assert [t.repeats for t in times.values()] == [20] * 3
    again = []
    order.clear()
    measure(calls, CPU, Budget(repeats=20))
    again = order[6:]
    assert again == measured  # the order is that of the seed


def test_repeats_follow_the_time_of_a_call():
    budget = Budget(seconds=2.)
    assert [budget.count(t) for t in (1e-6, .1, .5, 1.5, 19., 21.)] == [
        100, 20, 4, 3, 3, 1]


@pytest.mark.parametrize('first, before, repeats', [
    (.25, 2, 51), (.75, 1, 1)])  # seconds; ten budgets are 0.5
def test_a_call_that_compiles_first_is_repeated_as_others_are(
        first, before, repeats, monkeypatch):
    took = []

    def call():
        took.append(2**-10 if took else first)

    monkeypatch.setattr(timing, 'time',
                        SimpleNamespace(perf_counter=lambda: sum(took)))
    found = measure({'a': call}, CPU, Budget(seconds=.05))['a']
    assert (found.repeats, len(took)) == (repeats, before + repeats)
    assert found.median == 2**-10


def test_a_timing_is_the_median():
    timing = Timing.of([5., 1., 2., 100., 3.])
    assert (timing.median, timing.low, timing.high) == (3., 2., 5.)
    assert Timing.of([7.]) == Timing(7., 7., 7., 1)


@pytest.mark.parametrize('options, message', [
    (dict(seconds=0), 'seconds.*0'), (dict(repeats=0), 'repeats.*0')])
def test_an_empty_budget_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Budget(**options)


@pytest.mark.parametrize('mega', [2, 40])
def test_peak_memory_is_what_lives_at_once(mega):
    # In a fresh process: what others have freed leaves holes in the heap.
    peak, = run_python(f'''
        import torch
        from shiftwise_mm.analysis.benchmark.memory import peak_memory
        x = torch.zeros({mega} << 18)  # mega MiB

        def call():
            a = x + 1
            b = a * 2
            del a
            return b + 1

        call()
        print(peak_memory(call, torch.device('cpu')))
    ''')
    if peak == 'None':
        pytest.skip('no high-water mark of the memory here')
    assert 2 * mega - .5 <= int(peak) / 2**20 <= 2 * mega + 1.5


@pytest.mark.slow
def test_memory_of_a_training_step():
    """In a process of its own: about proportional to the images."""
    entry = Entry('SW-T', 'training form')
    options = dict(width_factor=.125, shift_form='strip')
    # Of several: one may count a fifth too much, by holes in its heap.
    small, large = (
        [step_memory(entry, size=(64, 64), batch=batch, layout='contiguous',
                     options=options) for _ in range(3)]
        for batch in (16, 48))
    if None in small:
        pytest.skip('no high-water mark of the memory here')
    small, large = min(small), min(large)
    assert 2.6 <= large / small <= 3.7
    with pytest.raises(RuntimeError, match=r'SW-T[\s\S]*nonsense'):
        step_memory(entry, size=(64, 64), batch=1, layout='contiguous',
                    options=dict(nonsense=1))


@pytest.mark.parametrize('shape, large, small', [
    ((2, 3, 9, 14), 13, 3), ((1, 2, 6, 5), 21, 5), ((1, 1, 4, 4), 6, 3)])
def test_products_are_those_inside_the_image(shape, large, small):
    spec = ShiftSpec.from_seed(channels=shape[1], large_kernel=large,
                               small_kernel=small)
    length, before, e = spec.strip_length, large // 2, small // 2
    image = torch.ones(1, 1, *shape[2:])
    # A convolution of ones counts the places that meet the image.
    v = F.conv2d(F.pad(image, (e, e, before, length - 1 - before)),
                 torch.ones(1, 1, length, small)).sum().item()
    i = F.conv2d(image, torch.ones(1, 1, small, small), padding=e).sum()
    planes = shape[0] * shape[1]
    numel, weight = planes * shape[2] * shape[3], spec.num_taps * shape[1]
    assert conv_work(spec, shape, ('v', 'i')).macs == planes * (v + i.item())
    both = conv_work(spec, shape, ('v', 'i'), backward=True)
    assert both.macs == 3 * planes * (v + i.item())
    assert conv_work(spec, shape, ('v', )).bytes == 4 * (
        2 * numel + weight * small**2)
    half = conv_work(spec, shape, ('v', ), density=.5)
    assert half.macs == int(planes * v * .5)
    assert both.bytes == 4 * (7 * numel + 3 * weight * small**2)
    y = weight * shape[0] * (shape[2] + 2 * e) * (shape[3] + 2 * e)
    assert shift_work(spec, shape, ('v', 'i')).bytes == 4 * (y + 2 * numel)


def test_work_of_a_network():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
    with torch.no_grad():
        work = network_work(net, torch.rand(2, 3, 5, 7))
    assert work.macs == 2 * 8 * 3 * 9 * 5 * 7
    inputs, out = 2 * 3 * 5 * 7, 2 * 8 * 5 * 7
    assert work.bytes == 4 * (inputs + 8 * 27 + 8 + out + 2 * out)


def test_percent_of_peak():
    assert Peaks(200., 50.).percent(2., 100., 10.) == (25., 10.)
    peaks = measure_peaks(CPU, size=32, elements=64, seconds=.01)
    assert peaks.macs > 0 and peaks.bytes > 0


def test_settings_are_undone(monkeypatch):
    before = torch.get_num_threads()
    settings = Settings(threads=before + 1, budget=Budget(repeats=1),
                        peak_size=16)
    with settings.start('op') as (device, _, report):
        assert torch.get_num_threads() == before + 1
        assert report.provenance['threads'] == before + 1
        assert device == CPU
    assert torch.get_num_threads() == before
    for bad, message in ((dict(threads=0), 'threads'),
                         (dict(device='tpu9'), "'tpu9'"),
                         (dict(device='cuda:77'), 'cuda:77')):
        with pytest.raises(ValueError, match=message), \
                Settings(**bad).start('op'):
            pass


def test_goals_say_whether_they_are_met():
    goal = Goal('P1', 'forward over slicing', 28., 31.24)
    assert goal.line() == ('goal P1: forward over slicing: at least 28x '
                           'asked, 31.2x measured, met')
    assert not Goal('P1', '', 28., 27.9).met
    less = Goal('P7', 'memory', .8, .81, at_least=False, unit='')
    assert not less.met and 'at most 0.8 asked' in less.line()
    assert 'NOT MET' in less.line()


def test_a_report_on_paper_and_in_a_file(tmp_path):
    table = Table('sizes', [{'name': 'a', 'ms': 1234.5, 'x': None},
                            {'name': 'b', 'ms': .012345, 'x': 2}], ['why'])
    text = table.markdown()
    assert '| a    | 1234   | - |' in text or '| a    | 1234 ' in text
    assert '0.0123' in text and '* why' in text
    report = Report('op', {'torch': '2'}, {'macs': 2e9, 'bytes': 3e9},
                    [table], [Goal('P1', 'w', 1., 2.)])
    assert 'Measured peaks: 2.0 GMAC/s (matrix product), 3.0 GB/s' in \
        report.markdown()
    file = tmp_path / 'out.json'
    write_json(report, file)
    content = json.loads(file.read_text())
    assert content['tables'][0]['rows'][1] == {'name': 'b', 'ms': .012345,
                                               'x': 2}
    assert content['goals'][0]['met'] is True
    assert [f.name for f in tmp_path.iterdir()] == ['out.json']
    with pytest.raises(OSError):
        write_json(report, tmp_path / 'nowhere' / 'out.json')
