"""The table of backbones, in code and by its tool."""
import re

import pytest
import torch
from helpers import ROOT
from processes import run_fresh

from shiftwise_mm.analysis import count_model
from shiftwise_mm.cli.list_models import main
from shiftwise_mm.zoo import (
    BACKBONES,
    PUBLISHED,
    build_backbone,
    format_rows,
    list_models,
    model_rows,
)

TOOL = ROOT / 'tools/list_models.py'
CHECKPOINTS = (ROOT / 'docs/checkpoints.md').read_text()


def test_a_row_tells_what_the_backbone_has():
    row, = model_rows(['shiftwise-nano'], flops=True)
    backbone = build_backbone('shiftwise-nano').eval()
    assert row.arguments == "ShiftWiseNet(arch='nano')"
    assert row.params == sum(p.numel() for p in backbone.parameters())
    assert row.macs == count_model(backbone, (224, 224), published=True).macs
    assert row.published is None
    plain, = model_rows(['shiftwise-nano'])
    assert plain.macs is None and plain.params == row.params


def test_published_parameters():
    """SW-T as published, without its classifier, and ConvNeXt-T."""
    rows = {row.name: row for row in model_rows(['shiftwise-tiny',
                                                 'convnext-tiny'])}
    with torch.device('meta'):
        norms = {name: sum(p.numel() for p in build_backbone(
            name, norm_out=False).parameters()) for name in rows}
    head = 640 * 2 + 640 * 1000 + 1000  # norm and classifier
    assert norms['shiftwise-tiny'] + head == 31_790_260
    assert norms['convnext-tiny'] + 768 * 2 + 768 * 1000 + 1000 == 28_589_128
    assert rows['convnext-tiny'].published.title == 'ConvNeXt-T'


def test_published_files_are_those_of_the_docs():
    assert set(PUBLISHED) <= set(BACKBONES)
    for name, file in PUBLISHED.items():
        assert file.url in CHECKPOINTS
        family, size = file.title.split('-')
        assert re.search(rf'^\| {family}-.*', CHECKPOINTS, re.M), name
        assert name.rpartition('-')[2][0].lower() == size[0].lower()


def test_formats():
    rows = list(model_rows(['shiftwise-slak-nano', 'slak-tiny']))
    plain = format_rows(rows).splitlines()
    assert plain[0].split() == ['name', 'builds', 'parameters', '(M)',
                                'published', 'checkpoint']
    assert plain[1].startswith("shiftwise-slak-nano  ShiftWiseNet("
                               "style='slak', arch='nano')  ")
    assert plain[2].endswith(f'SLaK-T, {PUBLISHED["slak-tiny"].url}')
    markdown = format_rows(rows, markdown=True).splitlines()
    assert {line.count('|') for line in markdown} == {5}
    assert f'[SLaK-T]({PUBLISHED["slak-tiny"].url})' in markdown[3]


@pytest.mark.parametrize('patterns', [
    ['*-nano', 'slak-*'], pytest.param([], marks=pytest.mark.slow)])
def test_the_tool_lists_them(tmp_path, patterns):
    done = run_fresh(TOOL, *patterns, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    head, *lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list_models(patterns or '*')
    assert not re.search(r'\b(nan|None)\b', done.stdout)


def test_options_of_the_tool(capsys):
    main(['slak-*', 'convnext-t*', '--names'])
    assert capsys.readouterr().out.split() == [
        'slak-tiny', 'slak-small', 'slak-base', 'convnext-tiny']
    main(['shiftwise-nano', '--flops', '--markdown'])
    *_, row = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\| shiftwise-nano \| `ShiftWiseNet\(arch='nano'\)` "
                        r'\| \d\.\d \| 0\.\d\d \| – \|', row)


def test_the_tool_refuses_a_pattern_that_nothing_fits(capsys):
    with pytest.raises(SystemExit) as caught:
        main(['resnet*', 'x'])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("list_models: no name fits 'resnet*' or 'x', all")
    assert error.count('\n') == 1
