"""Results as Markdown and as JSON."""
from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from shiftwise_mm.visualization.files import whole_file

__all__ = ['Goal', 'Report', 'Table', 'write_json', 'write_whole']


@dataclass
class Table:
    """Measured rows.

    Attributes:
        title (str): What was measured.
        rows (list[dict]): Values by column; all have the same columns.
        notes (list[str]): How to read it; contestants left out, and why.
    """

    title: str
    rows: list[dict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def markdown(self) -> str:
        """The table in Markdown, numbers to three digits."""
        lines = [f'### {self.title}', '']
        if self.rows:
            columns = list(self.rows[0])
            body = [[_cell(row[name]) for name in columns]
                    for row in self.rows]
            widths = [max(map(len, texts))
                      for texts in zip(columns, *body, strict=True)]
            for texts in (columns, ['-' * width for width in widths], *body):
                lines.append('| ' + ' | '.join(
                    text.ljust(width) for text, width in
                    zip(texts, widths, strict=True)) + ' |')
            lines.append('')
        lines += [f'* {note}' for note in self.notes]
        return '\n'.join(lines).rstrip() + '\n'


def _cell(value) -> str:
    if value is None:
        return '-'
    if isinstance(value, float):
        return f'{value:.0f}' if abs(value) >= 1000 else f'{value:.3g}'
    return str(value)


@dataclass
class Goal:
    """A ratio that the project asks of itself.

    Attributes:
        name (str): Such as ``'P1'``.
        what (str): The ratio in words.
        asked (float): Its bound.
        measured (float): What was measured.
        at_least (bool): Whether the bound is a lower one. Defaults to True.
        unit (str): Behind the figures. Defaults to ``'x'``.
    """

    name: str
    what: str
    asked: float
    measured: float
    at_least: bool = True
    unit: str = 'x'

    @property
    def met(self) -> bool:
        """Whether the bound holds."""
        return (self.measured >= self.asked if self.at_least else
                self.measured <= self.asked)

    def line(self) -> str:
        """The goal in one line."""
        bound = 'at least' if self.at_least else 'at most'
        return (f'goal {self.name}: {self.what}: {bound} '
                f'{self.asked:.3g}{self.unit} asked, '
                f'{self.measured:.3g}{self.unit} measured, '
                f'{"met" if self.met else "NOT MET"}')


@dataclass
class Report:
    """All that one run has measured.

    Attributes:
        command (str): Sub-command.
        provenance (dict): Versions, device, threads.
        peaks (dict): Measured peaks, 1/s.
        tables (list[Table]): In the order of printing.
        goals (list[Goal]): Those that the run can judge.
    """

    command: str
    provenance: dict
    peaks: dict
    tables: list[Table] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)

    def markdown(self) -> str:
        """Tables, then goals."""
        facts = ', '.join(f'{key} {value}'
                          for key, value in self.provenance.items())
        parts = [f'## {self.command}', '', facts, '',
                 f'Measured peaks: {self.peaks["macs"] / 1e9:.1f} GMAC/s '
                 f'(matrix product), {self.peaks["bytes"] / 1e9:.1f} GB/s '
                 '(stream, read and written).', '']
        parts += [table.markdown() for table in self.tables]
        parts += [goal.line() for goal in self.goals]
        return '\n'.join(parts).rstrip() + '\n'


def write_whole(path: Path, text: str) -> None:
    """Writes a text file, which appears whole or not at all.

    Raises:
        OSError: If it cannot be written.
    """
    with whole_file(path) as part:
        part.write_text(text, 'utf-8')


def write_json(report: Report, path: str | Path) -> None:
    """Writes a report with raw values: seconds, bytes, ratios.

    The file appears whole or not at all.

    Raises:
        OSError: If it cannot be written.
    """
    content = asdict(report)
    for goal, written in zip(report.goals, content['goals'], strict=True):
        written['met'] = goal.met
    write_whole(Path(path), json.dumps(content, indent=1) + '\n')
