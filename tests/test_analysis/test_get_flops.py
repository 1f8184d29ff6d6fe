"""tools/get_flops.py as its user runs it."""
import runpy

import pytest
from helpers import ROOT
from processes import run_forked, run_fresh

from shiftwise_mm.models import ShiftWiseNet

TOOL = ROOT / 'tools/get_flops.py'
CASCADE = ('configs/detection/'
           'cascade-mask-rcnn_shiftwise-tiny_fpn_ms-3x_coco.py')
NET = '''
model = dict(
    type='shiftwise_mm.ShiftWiseNet', kernel_sizes=(13, ), out_indices=(0, ),
    arch=dict(embed_dims=(64, ), depths=(1, )), strides=(4, ), num_reps=3)
'''


def run_tool(*args, cwd, run=run_forked):
    return run(TOOL, *args, cwd=cwd)


def rows(text):
    """Label of each line, and the columns."""
    head, *lines = text.splitlines()
    found = {line[:24].strip() if not line.startswith(' ') else
             line[:24].rstrip(): line[24:].split() for line in lines}
    return head.split(), found


def test_published_beside_what_runs(tmp_path):
    (tmp_path / 'net.py').write_text(NET)
    done = run_tool('net.py', '--shape', 512, 1024, '--cfg-options',
                    'model.num_paths=1', 'model.shift_form=shift',
                    cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    head, figures = rows(done.stdout)
    assert head == ['published', 'as', 'it', 'runs', '(shift)']
    # Of 64 channels 48 take part, with 5 taps and 3 repetitions.
    additions = 48 * 128 * 256 * (2 * 14 + 2) / 1e9
    assert figures['shift-adds, G additions'] == [f'{additions:.2f}'] * 2
    macs = figures['multiply-adds, G']
    assert macs[0] == macs[1] and float(macs[0]) > 0
    assert figures['  backbone'] == ['-', '-']
    params = figures['parameters, M']
    net = ShiftWiseNet(
        dict(embed_dims=(64, ), depths=(1, )), kernel_sizes=(13, ),
        strides=(4, ), num_paths=1, num_reps=3, out_indices=(0, ))
    total = sum(parameter.numel() for parameter in net.parameters())
    assert params == [f'{total / 1e6:.3f}'] * 2


def test_a_model_of_mmdet_has_one_column(tmp_path):
    (tmp_path / 'mine.py').write_text(
        "_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'\n")
    done = run_tool('mine.py', '--shape', 64, 96, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    head, figures = rows(done.stdout)
    assert head == ['counted']
    assert figures['parameters, M'] == ['21.410']
    assert 'shift-adds, G additions' not in figures


@pytest.mark.parametrize('args, words', [
    (('none.py', '--shape', '8', '8'), 'none.py'),
    (('empty.py', '--shape', '8', '8'), 'empty.py holds no model'),
    (('broken.py', '--shape', '8', '8'), 'broken.py'),
    (('net.py',), '--shape'),
    (('net.py', '--shape', '8'), '--shape'),
    (('net.py', '--shape', '0', '8'), 'height must be at least 1, got 0'),
    (('net.py', '--shape', '8', '-3'), 'width must be at least 1, got -3'),
    (('net.py', '--shape', '8', 'x'), "--shape: invalid int value: 'x'"),
    (('net.py', '--shape', '64', '64', '--cfg-options', 'num_paths'),
     "--cfg-options: must be key=value, got 'num_paths'"),
    (('net.py', '--shape', '64', '64', '--cfg-options', 'num_paths=1'),
     "no such key in net.py: 'num_paths'"),
    (('net.py', '--shape', '64', '64', '--cfg-options', 'model.paths=1'),
     "unexpected keyword argument 'paths'"),
    (('net.py', '--shape', '64', '64', '--cfg-options', 'model.num_paths=0'),
     'num_paths must be at least 1, got 0'),
    (('net.py', '--shape', '64', '64', '--cfg-options', 'model.type=None1'),
     'None1 is not in the'),
], ids=lambda value: ' '.join(value) if isinstance(value, tuple) else '')
def test_bad_input_is_one_line(args, words, tmp_path, monkeypatch, capsys):
    (tmp_path / 'net.py').write_text(NET)
    (tmp_path / 'empty.py').write_text('lr = 1\n')
    (tmp_path / 'broken.py').write_text('model = dict(\n')
    monkeypatch.chdir(tmp_path)
    main = runpy.run_path(str(TOOL))['main']
    with pytest.raises(SystemExit) as stop:
        main(args)
    out, err = capsys.readouterr()
    assert stop.value.code == 2
    assert out == ''
    assert err.count('\n') == 1, err
    assert err.startswith('get_flops: ') and words in err


def test_an_error_hides_behind_no_warning_of_a_package(tmp_path):
    """In a fresh process, where imports warn."""
    done = run_tool(ROOT / CASCADE, '--shape', 64, 64, '--cfg-options',
                    'model.backbone.num_pths=1', cwd=tmp_path, run=run_fresh)
    assert done.returncode == 2
    assert done.stderr.count('\n') == 1, done.stderr
    assert "unexpected keyword argument 'num_pths'" in done.stderr
