"""The pictures, through the library and the tool."""
import cv2
import numpy as np
import pytest
import torch
from helpers import ROOT, assert_near
from matplotlib.patches import Rectangle
from processes import run_forked, run_fresh

from shiftwise_mm.cli.plot_shifts import main
from shiftwise_mm.models.layers.ghost import split_channels
from shiftwise_mm.ops import ShiftSpec, shiftwise_conv
from shiftwise_mm.visualization import (
    Places,
    kept_taps,
    plot_curves,
    plot_fields,
    plot_occupancy,
    plot_places,
    plot_shifts,
    plot_sum,
    plot_taps_kept,
    save_figure,
    whole_file,
)
from shiftwise_mm.visualization.shift_sums import small_kernels

SPEC = ShiftSpec.from_seed(channels=2, large_kernel=13, small_kernel=3,
                           num_reps=2)


def panels(figure):
    return {axes.get_label(): axes for axes in figure.axes}


def numbers(axes):
    """Centre of each number that is drawn."""
    return [(int(text.get_text()), tuple(map(round, text.get_position())))
            for text in axes.texts]


def test_every_tap_is_drawn_where_it_is_shifted_to():
    axes = panels(plot_shifts(SPEC, channel=1, rep=1))
    assert [n for n, _ in numbers(axes['taps'])] == list(
        range(SPEC.num_taps))
    for direction in 'hv':
        drawn = dict(numbers(axes[direction]))
        for tap in range(SPEC.num_taps):
            offset = SPEC.tap_offsets(direction)[1, 1, tap].item()
            # y[w - offset] is the small convolution around w - offset - 1
            # of y's border, so its centre sits at -offset - e.
            expected = -offset - SPEC.small_kernel // 2
            assert drawn[tap] == ((expected, 0) if direction == 'h' else
                                  (0, expected)), (direction, tap)
    boxes = {tuple(p.get_bbox().extents) for p in axes['sum'].patches
             if isinstance(p, Rectangle)}
    # M = 13: pixels -6..8, of five taps of 3.
    assert boxes == {(-6.5, -1.5, 8.5, 1.5), (-1.5, -6.5, 1.5, 8.5),
                     (-1.5, -1.5, 1.5, 1.5)}


def test_channels_that_pass_are_told():
    split = split_channels(3, .3)
    assert len(split[0]) == SPEC.channels == 2
    axes = panels(plot_shifts(SPEC, channel=int(split[0][1]), split=split))
    assert [n for n, _ in numbers(axes['channels'])] == [0, 1, 2]
    plain = panels(plot_shifts(SPEC, channel=1))
    assert numbers(axes['h']) == numbers(plain['h'])
    with pytest.raises(ValueError, match='is a ghost, it passes unchanged'):
        plot_shifts(SPEC, channel=int(split[1][0]), split=split)


@pytest.mark.parametrize('draw, options, words', [
    (plot_shifts, dict(channel=2), r'channel.*0\.\.1.*2'),
    (plot_shifts, dict(rep=-1), 'rep.*0.*-1'),
    (plot_occupancy, dict(channel=2), r'channel.*0\.\.1.*2'),
    (plot_occupancy, dict(kept=torch.ones(2, 5)), 'kept must be bool'),
    (plot_sum, dict(channel=-1), 'channel.*0.*-1'),
])
def test_bad_arguments_are_named(draw, options, words):
    with pytest.raises(ValueError, match=words):
        draw(SPEC, **options)


def test_places_count_the_taps_that_are_kept():
    kept = kept_taps(SPEC, .6)
    assert kept.sum(1).tolist() == [3, 3]
    axes = panels(plot_occupancy(SPEC, 1, kept))
    for direction, perm in (('h', SPEC.perm_h), ('v', SPEC.perm_v)):
        drawn = numbers(axes[direction])
        taps = [n for n, _ in drawn[:-SPEC.num_taps]]
        assert taps == perm[:, 1].flatten().tolist()
        counts = [n for n, _ in drawn[-SPEC.num_taps:]]
        assert counts == kept[1][perm[:, 1]].sum(0).tolist()
        assert f'{sum(c > 0 for c in counts)} of 5 places' in \
            axes[direction].get_title()


def test_the_sum_is_the_kernel_that_convolves():
    """The strip drawn against the operator's answer to an impulse."""
    weight = small_kernels(SPEC)
    axes = panels(plot_sum(SPEC, 1, weight))
    impulse = torch.zeros(1, 2, 31, 31)
    impulse[:, :, 15, 15] = 1
    outputs = dict(zip('hv', shiftwise_conv(
        impulse, weight, SPEC, outputs=('h', 'v')), strict=True))
    for direction in 'hv':
        drawn = torch.as_tensor(axes[direction].images[0].get_array().data)
        answer = outputs[direction][0, 1].flip(0, 1)
        answer = answer if direction == 'h' else answer.t()
        assert_near(drawn, answer[14:17, 15 - 6:15 + 9])
        rows = [torch.as_tensor(axes[f'{direction}{r}'].images[0].get_array()
                                .data) for r in range(2)]
        assert_near(rows[0] + rows[1], drawn)


def run_tool(*args, run=run_forked):
    return run(ROOT / 'tools/plot_shifts.py', *args)


def test_the_tool_writes_a_picture(tmp_path):
    done = run_tool(tmp_path / 'shifts.png', '--large-kernel', 51,
                    run=run_fresh)
    assert done.returncode == 0, done.stderr
    assert cv2.imread(str(tmp_path / 'shifts.png')).shape[0] > 300
    assert [f.name for f in tmp_path.iterdir()] == ['shifts.png']


@pytest.mark.parametrize('args, words', [
    (('shifts.png', '--small-kernel', 4), 'small_kernel'),
    (('shifts.png', '--density', .5), 'density'),
    (('shifts.png', '--view', 'reps', '--density', 2), 'density'),
    (('shifts.png', '--channels', 8, '--ghost-ratio', 1), 'ghost_ratio'),
    (('shifts.png', '--channels', 8, '--ghost-ratio', .5, '--style', 'x'),
     'style'),
    (('shifts.png', '--view', 'all'), '--view'),
    (('shifts.png', '--seed', -1), 'seed'),
    (('shifts.xyz', ), 'xyz'),
    (('missing/shifts.png', ), 'missing'),
])
def test_the_tool_leaves_nothing_behind(args, words, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path / args[0]), *map(str, args[1:])])
    err = capsys.readouterr().err
    assert caught.value.code == 2
    assert err.startswith('plot_shifts: ')
    assert err.count('\n') == 1 and words in err
    assert not list(tmp_path.iterdir())


def test_an_earlier_file_survives_an_error(tmp_path):
    (tmp_path / 'a.txt').write_text('old')
    with pytest.raises(OSError), whole_file(tmp_path / 'a.txt') as part:
        part.write_text('ne')
        raise OSError('full')
    assert [f.name for f in tmp_path.iterdir()] == ['a.txt']
    assert (tmp_path / 'a.txt').read_text() == 'old'


def test_pictures_are_the_same_bytes_each_time(tmp_path):
    for name in 'a.svg', 'b.svg':
        save_figure(plot_shifts(SPEC), tmp_path / name)
    assert (tmp_path / 'a.svg').read_bytes() == (
        tmp_path / 'b.svg').read_bytes()


def test_curves_have_a_panel_a_scalar_and_a_line_a_run():
    dense = [(i, float(i % 7)) for i in range(1, 101)]
    figure = plot_curves({'loss': {'a': dense, 'b': dense[:50]},
                          'mIoU': {'a': [(50, .3), (100, .4)], 'b': []}},
                         smooth=10)
    loss, metric = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ['loss', 'mIoU']
    assert len(loss.lines) == 4 and len(metric.lines) == 1
    means = loss.lines[1].get_ydata()
    assert means[50] == pytest.approx(sum(y for _, y in dense[46:55]) / 9)
    assert means[2] == pytest.approx(sum(y for _, y in dense[:5]) / 5)
    assert means[[0, -1]].tolist() == [1, 2]  # as logged
    assert metric.lines[0].get_xydata().tolist() == [[50, .3], [100, .4]]
    assert metric.lines[0].get_color() == loss.lines[0].get_color()
    with pytest.raises(ValueError, match='smooth'):
        plot_curves({'loss': {'a': dense}}, smooth=0)


def test_runs_in_one_panel_are_smoothed_alike():
    """A short run beside a long one, on the same line."""
    line = [(i, 100. - i) for i in range(1, 101)]
    figure = plot_curves({'loss': {'long': line, 'short': line[:9]}},
                         smooth=5)
    (panel, ) = figure.axes
    assert len(panel.lines) == 4
    long, short = panel.lines[1].get_ydata(), panel.lines[3].get_ydata()
    assert short == pytest.approx(long[:9])  # no run lags behind
    assert long == pytest.approx([y for _, y in line])


def test_large_fields_are_drawn_by_means():
    scores = np.random.default_rng(0).random((301, 150))
    axes, _ = plot_fields(dict(a=scores), dict(a={.2: (5, .04)})).axes
    drawn = axes.images[0].get_array()
    assert drawn.shape == (101, 50)
    assert drawn[1, 2] == pytest.approx(scores[3:6, 6:9].mean())
    assert drawn[-1, 0] == pytest.approx(scores[300:, :3].mean())


def test_fields_have_a_panel_a_network_with_its_squares():
    scores = np.random.default_rng(0).random((20, 30))
    squares = {.2: (5, .04), .99: (20, 1.)}
    figure = plot_fields(dict(a=scores, b=scores), dict(a=squares, b=squares))
    for axes in figure.axes[:2]:
        assert (axes.images[0].get_array() == scores).all()
        assert [(p.get_width(), p.get_height()) for p in axes.patches] == [
            (5, 5), (20, 20)]
        # Around the centre pixel (15, 10).
        assert axes.patches[0].get_xy() == (12.5, 7.5)
        assert axes.texts[0].get_text() == '20%: 4.0%  99%: 100.0%'


def bars(axes):
    """Heights by centre, of each series in turn."""
    return [{round(bar.get_x() + bar.get_width() / 2): bar.get_height()
             for bar in series} for series in axes.containers]


def test_histograms_have_a_panel_a_stage():
    counts = {'a': [3, 0, 2], 'b': [1, 4], 'c': [1], 'd': [0, 1], 'e': [2, 7]}
    figure = plot_taps_kept(counts)
    shown = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title() for axes in shown] == list(counts)
    for axes, numbers in zip(shown, counts.values(), strict=True):
        assert bars(axes) == [dict(enumerate(numbers))]


def test_places_have_a_row_a_stage():
    places = {
        stage: {d: Places(3, {-3: 8, 0: 8, 3: 8}, {-3: n, 0: 2, 3: 0})
                for d, n in zip('hv', numbers, strict=True)}
        for stage, numbers in (('stage0', (1, 5)), ('stage1', (4, 6)))}
    figure = plot_places(places)
    panels = iter(figure.axes)
    for by_direction in places.values():
        for found in by_direction.values():
            assert bars(next(panels)) == [found.channels, found.kept]
    assert [axes.get_title() for axes in figure.axes[:2]] == ['horizontal',
                                                              'vertical']
