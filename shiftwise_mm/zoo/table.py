"""The table of the backbones: arguments, size, cost, published weights."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from shiftwise_mm.analysis import count_model

from .names import BACKBONES, build_backbone
from .weights import PUBLISHED, PublishedFile

__all__ = ['ModelRow', 'format_rows', 'model_rows']

_NONE = '–'


@dataclass(frozen=True)
class ModelRow:
    """A backbone.

    Attributes:
        name: Its name.
        arguments: What ``type`` and arguments build it.
        params: Parameters of the training form, the output norms included.
        macs: Multiply-adds of a forward pass of one image of 224x224, in the
            published composition; None where they were not counted.
        published: The published checkpoint for it, where one is known.
    """

    name: str
    arguments: str
    params: int
    macs: int | None = None
    published: PublishedFile | None = None


def model_rows(names: Iterable[str] = tuple(BACKBONES), *,
               flops: bool = False) -> Iterator[ModelRow]:
    """A row for each backbone, its parameters counted.

    Args:
        names (Iterable[str]): Of :data:`BACKBONES`. Defaults to all.
        flops (bool): Whether to count multiply-adds as well, which takes
            some seconds for each. Defaults to False.

    Raises:
        ValueError: If a name is unknown.
    """
    for name in names:
        # What is not run needs no values.
        with torch.device('cpu' if flops else 'meta'):
            backbone = build_backbone(name)
        macs = count_model(backbone.eval(), (224, 224),
                           published=True).macs if flops else None
        config = dict(BACKBONES[name])
        kind = config.pop('type').rpartition('.')[2]
        arguments = ', '.join(f'{k}={v!r}' for k, v in config.items())
        yield ModelRow(name, f'{kind}({arguments})',
                       sum(p.numel() for p in backbone.parameters()), macs,
                       PUBLISHED.get(name))


def format_rows(rows: Iterable[ModelRow], *, markdown: bool = False) -> str:
    """Rows as a table, for a terminal or in Markdown.

    A column of multiply-adds is there if one of the rows has them.
    """
    rows = list(rows)
    flops = any(row.macs is not None for row in rows)
    head = ['name', 'builds', 'parameters (M)',
            *(['GFLOPs at 224x224'] if flops else []),
            'published checkpoint']
    lines = [[
        row.name,
        f'`{row.arguments}`' if markdown else row.arguments,
        f'{row.params / 1e6:.1f}',
        *([_NONE if row.macs is None else f'{row.macs / 1e9:.2f}']
          if flops else []),
        _link(row.published, markdown),
    ] for row in rows]
    if markdown:
        return '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in
                         [head, ['---'] * len(head), *lines])
    return _plain([head, *lines])


def _link(file: PublishedFile | None, markdown: bool) -> str:
    if file is None:
        return _NONE
    return f'[{file.title}]({file.url})' if markdown else \
        f'{file.title}, {file.url}'


def _plain(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return '\n'.join(
        '  '.join(cell.ljust(width) for cell, width in
                  zip(cells, widths, strict=True)).rstrip()
        for cells in lines)
