"""The table of what came of many configs."""
from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from importlib.metadata import version

from shiftwise_mm.config_paths import configs_of
from shiftwise_mm.stack import installed_versions

from .check import SIZES
from .sweep import OUTCOMES

__all__ = ['swap_report']


def swap_report(rows: Sequence[dict], name: str, command: str) -> str:
    """Markdown: totals, reasons, a row a folder, a row a config.

    Args:
        rows (Sequence[dict]): What :func:`shiftwise_mm.swap.sweep.sweep`
            returned.
        name (str): Name of the backbone.
        command (str): The command that makes the report.
    """
    rows = [dict(row, reason=_tidy(row['reason'])) for row in rows]
    numbers = _number(rows)
    return '\n'.join([
        *_introduction(rows, name, command), '', *_totals(rows), '',
        *_reasons(rows, numbers),
        '## By folder', '', *_folders(rows), '',
        '## All configs', '',
        'An asterisk: the same model as an earlier one, which was checked.',
        '', *_configs(rows, numbers)]) + '\n'


def _tidy(reason: str) -> str:
    """In one line, without the place of the packages on this machine."""
    for package in ('mmdet', 'mmseg'):
        folder = configs_of(package)
        reason = reason.replace(f'{folder}/', f'{package}::')
    return ' '.join(reason.replace('|', r'\|').split())


def _number(rows: Sequence[dict]) -> dict[tuple[str, str], int]:
    """Reasons by outcome, numbered as they are listed."""
    counts = Counter((row['outcome'], row['reason']) for row in rows
                     if row['reason'])
    order = list(OUTCOMES)
    listed = sorted(counts, key=lambda key: (order.index(key[0]),
                                             -counts[key], key[1]))
    return {key: i for i, key in enumerate(listed, 1)}


def _introduction(rows: Sequence[dict], name: str,
                  command: str) -> list[str]:
    checks = sum(row['outcome'] == 'checked' and not row['like']
                 for row in rows)
    versions = ', '.join(f'{package} {version(package)}'
                         for package in ('torch', *installed_versions()))
    return [
        '# The backbone swapped in all configs of MMDetection and '
        'MMSegmentation', '',
        f'`{name}` put into every config that the packages ship, made by', '',
        f'```bash\n{command}\n```', '',
        f'Measured here on a CPU with {versions}.', '',
        'For each config the short config is written, read again and '
        'compared with the swapped one. *Checked* means that the model was '
        'built, that every level of the backbone has the stride of the '
        'original and the channels that neck and heads take, that a step of '
        f'training (noise, {" or ".join(map(str, SIZES))} pixels) gave '
        'finite losses and a gradient for every parameter of the backbone, '
        'and that it predicted. Configs that differ in data set (the number '
        'of classes, the colours) or schedule only, or in the original '
        'backbone only, become the same model, which is checked once: '
        f'{checks} different models passed. *Built '
        'only* and *the original does not build here* are said of configs '
        'that fail in the same way without the swap.']


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
    swappable = counts['checked'] + counts['built'] + counts['failed']
    good = builds - counts['failed']
    return [*lines, '',
            f'Of the {builds} configs whose original builds here, {good} '
            f'({_percent(good, builds)}) were swapped or refused with a '
            f'reason; of the {swappable} that can be swapped, '
            f'{counts["checked"]} ({_percent(counts["checked"], swappable)}) '
            'passed the check.']


def _percent(part: int, whole: int) -> str:
    return f'{100 * part / whole:.1f}%' if whole else '-'


def _reasons(rows: Sequence[dict], numbers: dict) -> list[str]:
    lines = []
    for outcome, heading in OUTCOMES.items():
        listed = [key for key in numbers if key[0] == outcome]
        if not listed:
            continue
        lines += [f'## {heading[0].upper()}{heading[1:]}', '',
                  '| no. | configs | reason |', '|---:|---:|---|']
        for key in listed:
            count = sum((row['outcome'], row['reason']) == key
                        for row in rows)
            lines.append(f'| {numbers[key]} | {count} | {key[1]} |')
        lines.append('')
    return lines


def _folder(row: dict) -> str:
    return row['config'].partition('/')[0]


def _folders(rows: Sequence[dict]) -> list[str]:
    folders = defaultdict(Counter)
    for row in rows:
        folders[_folder(row)][row['outcome']] += 1
    lines = ['| folder | ' + ' | '.join(OUTCOMES.values()) + ' |',
             '|---|' + '---:|' * len(OUTCOMES)]
    for folder, counts in sorted(folders.items()):
        cells = ' | '.join(str(counts[outcome] or '')
                           for outcome in OUTCOMES)
        lines.append(f'| {folder} | {cells} |')
    return lines


def _configs(rows: Sequence[dict], numbers: dict) -> list[str]:
    lines = ['| config | outcome | no. |', '|---|---|---:|']
    for row in rows:
        number = numbers.get((row['outcome'], row['reason']), '')
        lines.append(f'| {row["config"]} | {row["outcome"]}'
                     f'{" *" if row["like"] else ""} | {number} |')
    return lines
