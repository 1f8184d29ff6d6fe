"""The page of the model zoo, made from the metafiles of the configs."""
from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from shiftwise_mm.config_paths import configs_of

__all__ = ['SOURCES', 'TASKS', 'model_zoo_page']

TASKS = {
    'Classification, ImageNet-1K': ('classification', 'pretraining'),
    'Detection, COCO': ('detection', ),
    'Segmentation, ADE20K': ('segmentation', ),
    'Demo, generated images of shapes': ('demo', ),
}
"""Folders of the configs, by the heading of their table."""
SOURCES = {
    'published (U)': 'published, U',
    'published (S)': 'published, S',
    'published': 'published',
    'converted': 'converted',
    'measured here': 'measured here',
}
"""How a figure is marked on the page, by ``Source`` in a metafile."""

_NONE = '–'
_INTRODUCTION = """\
English | [简体中文](zh_CN/model_zoo.md)

# Model zoo

One table a task, a row a config. No weights come with this package: published
ones load as they are ([checkpoints.md](checkpoints.md)). Each figure is marked
with where it comes from:

* *published*: the authors' own, from their training; *U* from the project's
  README or files, *S* from a second-hand record of the paper's tables, without
  a letter from a record that names no source.
* *converted*: published weights, loaded by this package and tested by it.
* *measured here*: trained and tested by this package; the page of the folder
  tells the machine and versions.

{counts}
Parameters are counted here, those of the whole model. What is behind a row,
recipe and reasons, is in the `README.md` of its folder.

*Written by `shiftwise list-models --zoo`.*
"""


def model_zoo_page(configs: str | os.PathLike | None = None,
                   link: str = '../configs') -> str:
    """The page in Markdown.

    Args:
        configs (str, optional): Folder of the configs, with
            ``FOLDER/metafile.yml``. Defaults to that of the installed
            package.
        link (str): What links to a config begin with, as seen from the page.
            Defaults to ``'../configs'``.

    Raises:
        FileNotFoundError: If a metafile is not there.
        ValueError: If a figure has no source out of :data:`SOURCES`.
    """
    root = configs_of('shiftwise_mm') if configs is None else Path(configs)
    parts, marks = [], []
    for title, folders in TASKS.items():
        files = [yaml.safe_load((root / folder / 'metafile.yml').read_text(
            'utf-8')) for folder in folders]
        parts.append(f'## {title}\n\n{_table(files, folders, link, marks)}\n')
    return '\n'.join([_INTRODUCTION.format(counts=_counts(marks)), *parts])


def _counts(marks: Sequence[str]) -> str:
    """How many figures come from where, lest a kind seems to be there."""
    kinds = [mark.partition(',')[0] for mark in marks]
    found = [f'{kinds.count(kind)} {kind}' for kind in
             dict.fromkeys(mark.partition(',')[0]
                           for mark in SOURCES.values())]
    return f'Of {len(kinds)} figures are {", ".join(found)}.'


def _table(files: Sequence[Mapping], folders: Sequence[str], link: str,
           marks: list[str]) -> str:
    models = [(folder, file, model)
              for folder, file in zip(folders, files, strict=True)
              for model in file['Models']]
    metrics = list(dict.fromkeys(
        name for *_, model in models for result in model.get('Results', [])
        for name in result['Metrics']))
    head = ['config', 'network', 'parameters (M)', *metrics]
    rows = [head, ['---'] * len(head)]
    for folder, file, model in models:
        papers = {c['Name']: c['Paper']['URL'] for c in file['Collections']}
        network = model['In Collection']
        figures = _figures(model, marks)
        name = model['Name']
        rows.append([
            f'[{name}]({link}/{folder}/{name}.py)',
            f'[{network}]({papers[network]})',
            str(model['Metadata']['Parameters (M)']),
            *(figures.get(metric, _NONE) for metric in metrics)
        ])
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)


def _figures(model: Mapping, marks: list[str]) -> dict[str, str]:
    """Each with its mark, which is noted in ``marks`` too."""
    found = {}
    for result in model.get('Results', []):
        if result.get('Source') not in SOURCES:
            raise ValueError(
                f'{model["Name"]} has figures with Source '
                f'{result.get("Source")!r}, must be one of '
                f'{", ".join(SOURCES)}')
        mark = SOURCES[result['Source']]
        for metric, value in result['Metrics'].items():
            found[metric] = f'{value} ({mark})'
            marks.append(mark)
    return found
