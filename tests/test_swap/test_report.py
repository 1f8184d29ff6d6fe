"""The table of many swaps, from rows made by hand."""
from mmengine.utils import get_installed_path

from shiftwise_mm.swap.report import swap_report


def row(config, outcome, reason='', like=''):
    return dict(config=config, outcome=outcome, reason=reason, like=like)


ROWS = [
    row('mmdet::a/one.py', 'checked'),
    row('mmdet::a/two.py', 'checked', like='mmdet::a/one.py'),
    row('mmdet::b/deep/three.py', 'refused', 'it is | tied\n to another'),
    row('mmseg::a/four.py', 'built', 'no kernel'),
    row('mmseg::a/five.py', 'original',
        f'no file {get_installed_path("mmseg")}/.mim/configs/x.py'),
    row('mmseg::c/six.py', 'failed', 'unknown'),
    row('mmseg::c/seven.py', 'refused', 'no model'),
    row('mmseg::c/eight.py', 'refused', 'no model'),
]


def test_counts_reasons_and_rows():
    text = swap_report(ROWS, 'shiftwise-tiny', 'python x.py')
    for line in (
            '| swapped and checked | 2 | 0 | 2 |',
            '| swapped, built only | 0 | 1 | 1 |',
            '| refused with a reason | 1 | 2 | 3 |',
            '| the original does not build here | 0 | 1 | 1 |',
            '| failed | 0 | 1 | 1 |',
            'Of the 7 configs whose original builds here, 6 (85.7%) were '
            'swapped or refused with a reason; of the 4 that can be swapped, '
            '2 (50.0%) passed the check.',
            '| 1 | 1 | no kernel |',
            '| 2 | 2 | no model |',  # the most frequent first
            r'| 3 | 1 | it is \| tied to another |',
            '| 4 | 1 | no file mmseg::x.py |',
            '| 5 | 1 | unknown |',
            '| mmdet::b |  |  | 1 |  |  |',
            '| mmdet::a/one.py | checked |  |',
            '| mmdet::a/two.py | checked * |  |',
            '| mmseg::c/seven.py | refused | 2 |'):
        assert f'{line}\n' in text, line
    assert 'python x.py' in text
    assert '1 different models passed' in text
    assert get_installed_path('mmseg') not in text
