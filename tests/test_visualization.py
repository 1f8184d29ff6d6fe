"""The pictures, through the library and the tool."""
import cv2
import pytest
from helpers import ROOT
from matplotlib.patches import Rectangle
from processes import run_forked, run_fresh

from shiftwise_mm.ops import ShiftSpec
from shiftwise_mm.visualization import (
    Places,
    plot_places,
    plot_shifts,
    plot_taps_kept,
)

SPEC = ShiftSpec.from_seed(channels=2, large_kernel=13, small_kernel=3,
                           num_reps=2)


def test_every_tap_is_drawn_where_it_is_shifted_to():
    figure = plot_shifts(SPEC, channel=1, rep=1)
    taps, plane = figure.axes
    texts = [t.get_text() for t in taps.texts]
    assert texts == [str(j) for j in range(SPEC.num_taps)]
    centres = {}
    for text in plane.texts:
        centres.setdefault(int(text.get_text()), []).append(
            tuple(map(round, text.get_position())))
    for direction, axis in (('h', 0), ('v', 1)):
        for tap in range(SPEC.num_taps):
            offset = SPEC.tap_offsets(direction)[1, 1, tap].item()
            # y[w - offset] is the small convolution around w - offset - 1
            # of y's border, so its centre sits at -offset - e.
            expected = -offset - SPEC.small_kernel // 2
            place = (expected, 0) if axis == 0 else (0, expected)
            assert place in centres[tap], (direction, tap)
    frames = [p for p in plane.patches if isinstance(p, Rectangle)
              and not p.get_fill()]
    assert len(frames) == 1


@pytest.mark.parametrize('options, words', [
    (dict(channel=2), r'channel.*0\.\.1.*2'),
    (dict(rep=-1), 'rep.*0.*-1'),
])
def test_bad_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        plot_shifts(SPEC, **options)


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
    (('shifts.xyz', ), 'xyz'),
    (('missing/shifts.png', ), 'missing'),
])
def test_the_tool_leaves_nothing_behind(args, words, tmp_path):
    done = run_tool(tmp_path / args[0], *args[1:])
    assert done.returncode == 2
    assert done.stderr.count('\n') == 1 and words in done.stderr
    assert not list(tmp_path.iterdir())


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
