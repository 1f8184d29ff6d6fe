"""What is predicted of a GPU: counts by hand, and the table in the docs."""
import pytest
import torch
from helpers import ROOT

from shiftwise_mm.analysis.benchmark import H100, predict_table1
from shiftwise_mm.analysis.benchmark.machine import Peaks

PLANE = 90 * 128 * 56 * 56
Y = 90 * 128 * 11 * 60 * 60  # N 5: two more on each side


def row(table, label):
    return next(r for r in table.rows if r['row'].startswith(label))


def test_rows_by_hand():
    table = predict_table1()
    fused = row(table, 'form fused')
    # Row h of the image meets the rows h - 25 .. h + 29 of 0 .. 55, and
    # column w the columns w - 2 .. w + 2.
    image = torch.arange(56)
    rows = sum(int(((image + a >= 0) & (image + a < 56)).sum())
               for a in range(-25, 30))
    macs = 90 * 128 * rows * (5 * 56 - 6)
    weight = 4 * 128 * 11 * 25
    assert fused['GFLOP'] == pytest.approx(2e-9 * macs)
    assert fused['x, outputs, weights GB'] == pytest.approx(
        1e-9 * (8 * PLANE + weight))
    assert fused['forward ms'] == pytest.approx(1e3 * macs / 33.5e12)
    assert fused['backward ms'] == pytest.approx(2 * fused['forward ms'])
    assert fused['y GB'] == 0

    shift = row(table, '+ a shift kernel')
    total = 4 * (2 * PLANE + 2 * Y) + weight
    assert shift['y GB'] == pytest.approx(8e-9 * Y)
    assert shift['forward ms'] == pytest.approx(1e3 * total / 3.35e12)
    alone = row(table, 'grouped convolution alone')
    assert alone['GFLOP'] == pytest.approx(2e-9 * PLANE * 11 * 25)
    # The gradient of y is written once and read twice.
    assert shift['backward ms'] == pytest.approx(
        1e3 * (4 * (3 * PLANE + 3 * Y) + 2 * weight) / 3.35e12)
    assert shift['published backward ms'] == 46.8


def test_slices_touch_what_lies_inside():
    # M 6, N 3: taps at 1 and -2; of 4 rows from 6, 3 and 4 lie inside.
    table = predict_table1(Peaks(1e30, 1e9), batch=1, channels=1, size=(4, 7),
                           kernel=(6, 3))
    part = 4 * 7 * (3 + 4)
    y = 4 * 2 * 6 * 9
    grouped = 4 * 28 + y + 4 * 2 * 9
    sliced = row(table, '+ slice')
    assert sliced['y GB'] == pytest.approx(1e-9 * (y + part))
    assert sliced['forward ms'] == pytest.approx(1e-6 *
                                                 (grouped + 3 * part))
    assert sliced['backward ms'] == pytest.approx(
        1e-6 * (y + 2 * grouped + 3 * part))


def test_the_docs_show_what_is_computed():
    text = (ROOT / 'docs/gpu.md').read_text()
    table = predict_table1().markdown()
    assert 'predicted, not measured' in table and table in text
    assert (H100.macs, H100.bytes) == (33.5e12, 3.35e12)
    assert '67 TFLOP/s in f32' in text and '3.35 TB/s' in text
    fused = row(predict_table1(), 'form fused')
    assert f'{2.6 * fused["forward ms"]:.2f} ms' in text
    assert f'{fused["x, outputs, weights GB"] / 3.35:.3f} ms' in text
    assert f'{8e3 * Y / H100.bytes:.1f} ms, five times' in text
    assert round(15.4 / fused['forward ms']) == 70
