"""The table of what came of many configs."""
from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from importlib.metadata import version

from .sweep import OUTCOMES

__all__ = ['swap_report']

_PACKAGES = ('torch', 'mmengine', 'mmcv', 'mmdet', 'mmsegmentation')
_EXAMPLES = 3


def swap_report(rows: Sequence[dict], name: str, command: str) -> str:
    """Markdown: totals, a row a folder, and every reason with its configs.

    Args:
        rows (Sequence[dict]): What :func:`shiftwise_mm.swap.sweep.sweep`
            returned.
        name (str): Name of the backbone.
        command (str): The command that makes the report.
    """
    checks = sum(row['outcome'] == 'checked' and not row['like']
                 for row in rows)
    versions = ', '.join(f'{package} {version(package)}'
                         for package in _PACKAGES)
    return '\n'.join([
        '# The backbone swapped in all configs of MMDetection and '
        'MMSegmentation', '',
        f'`{name}` put into every config that the packages ship, made by', '',
        f'```bash\n{command}\n```', '',
        f'Measured here on a CPU with {versions}.', '',
        'For each config the short config is written, read again and compared '
        'with the swapped one. *Checked* means that the model was built, '
        'that every level of the backbone has the stride of the original and '
        'the channels that neck and heads take, that a step of training '
        '(noise, 128 to 416 pixels) gave finite losses and a gradient for '
        'every parameter of the backbone, and that it predicted. Configs '
        'that differ in data set or schedule only, or in the original '
        'backbone only, become the same model, which is checked once: '
        f'{checks} different models passed. *The original does not build '
        'here* is said of configs that fail without the swap as well.', '',
        *_totals(rows), '', '## By folder', '', *_folders(rows), '',
        *_reasons(rows)]).rstrip() + '\n'


def _totals(rows: Sequence[dict]) -> list[str]:
    packages = sorted({row['config'].partition('::')[0] for row in rows})
    lines = [f'| | {" | ".join(packages)} | all |',
             '|---|' + '---:|' * (len(packages) + 1)]
    for outcome, heading in OUTCOMES.items():
        counts = [sum(row['outcome'] == outcome
                      and row['config'].startswith(f'{package}::')
                      for row in rows) for package in packages]
        lines.append(f'| {heading} | {" | ".join(map(str, counts))} | '
                     f'{sum(counts)} |')
    counts = Counter(row['outcome'] for row in rows)
    builds = len(rows) - counts['original']
    swapped = counts['checked'] + counts['built']
    good = swapped + counts['refused']
    return [*lines, '',
            f'Of the {builds} configs whose original builds here, {good} '
            f'({_percent(good, builds)}) were swapped or refused with a '
            f'reason; of the {swapped + counts["failed"]} that can be '
            f'swapped, {counts["checked"]} '
            f'({_percent(counts["checked"], swapped + counts["failed"])}) '
            'passed the check.']


def _percent(part: int, whole: int) -> str:
    return f'{100 * part / whole:.1f}%' if whole else '-'


def _folders(rows: Sequence[dict]) -> list[str]:
    folders = defaultdict(Counter)
    for row in rows:
        folders[row['config'].rpartition('/')[0].partition('/')[0]
                or row['config']][row['outcome']] += 1
    lines = ['| folder | ' + ' | '.join(OUTCOMES.values()) + ' |',
             '|---|' + '---:|' * len(OUTCOMES)]
    for folder, counts in sorted(folders.items()):
        cells = ' | '.join(str(counts[outcome] or '')
                           for outcome in OUTCOMES)
        lines.append(f'| {folder} | {cells} |')
    return lines


def _reasons(rows: Sequence[dict]) -> list[str]:
    lines = []
    for outcome, heading in OUTCOMES.items():
        reasons = defaultdict(list)
        for row in rows:
            if row['outcome'] == outcome and row['reason']:
                reasons[row['reason']].append(row['config'])
        if not reasons:
            continue
        lines += [f'## {heading[0].upper()}{heading[1:]}: reasons', '',
                  '| configs | reason | such as |', '|---:|---|---|']
        for reason, configs in sorted(reasons.items(),
                                      key=lambda item: -len(item[1])):
            examples = ', '.join(f'`{c}`' for c in configs[:_EXAMPLES])
            cell = reason.replace('|', r'\|')
            lines.append(f'| {len(configs)} | {cell} | {examples} |')
        lines.append('')
    return lines
