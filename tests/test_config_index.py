"""Every config is in README and metafile; figures say whose they are."""
import re

import pytest
import yaml
from helpers import ROOT, shared_path
from shipped import built, read

from shiftwise_mm.stack import ONEDL, find_stack

FOLDERS = sorted(p.name for p in (ROOT / 'configs').iterdir() if p.is_dir())
# {model}_{backbone}_{schedule}_{dataset}; with _fpn behind the backbone as in
# mmdet. A classifier's model is its backbone, and evaluation has no schedule.
MODEL = r'(?P<model>[a-z0-9]+(?:-[a-z0-9]+)*)'
BACKBONE = r'(?P<backbone>[a-z0-9]+(?:-[a-z0-9]+)*)'
PATTERNS = {
    'detection': rf'{MODEL}_{BACKBONE}(?:_fpn)?_(?P<schedule>1x|ms-3x|\d+e)_'
    r'(?P<dataset>coco)',
    'segmentation': rf'{MODEL}_{BACKBONE}_(?P<schedule>160k)_'
    r'(?P<dataset>ade20k-512x512)',
    'demo': rf'{MODEL}_{BACKBONE}_(?P<schedule>demo)_(?P<dataset>shapes)',
    'pretraining': rf'{BACKBONE}_(?P<schedule>\d+e)_(?P<dataset>in1k-224)',
    'classification': rf'{BACKBONE}_(?P<dataset>in1k-224)',
}
SOURCES = ('published (U)', 'published (S)', 'published', 'measured here')
NONE = '–'


def configs_of(folder):
    return sorted(p.stem for p in (ROOT / 'configs' / folder).glob('*.py'))


def metafile_of(folder):
    return yaml.safe_load(
        (ROOT / 'configs' / folder / 'metafile.yml').read_text('utf-8'))


def readme_of(folder):
    return (ROOT / 'configs' / folder / 'README.md').read_text('utf-8')


def tables(text):
    """Rows of all tables, each a dict by the heads of its columns."""
    head = None
    for line in [*text.splitlines(), '']:
        cells = [cell.strip() for cell in line.strip('|').split('|')]
        if not line.startswith('|'):
            head = None
        elif head is None:
            head = cells
        elif not set(line) <= set('|-: '):
            yield dict(zip(head, cells, strict=True))


def rows_of(folder):
    """Rows of the table of configs, by name."""
    rows = [row for row in tables(readme_of(folder)) if 'config' in row]
    links = [re.fullmatch(r'\[(.+)\]\((.+)\)', row['config'])
             for row in rows]
    assert all(link[2] == f'{link[1]}.py' for link in links)
    return [(link[1], row) for link, row in zip(links, rows, strict=True)]


def test_the_index_imports_every_metafile():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    assert index == dict(
        Import=[f'configs/{folder}/metafile.yml' for folder in FOLDERS])


def test_mmengine_finds_configs_by_the_metafiles():
    from mmengine.hub import get_config

    import shiftwise_mm  # noqa: F401  tells mmengine the package's name
    name = 'detection/cascade-mask-rcnn_shiftwise-tiny_fpn_ms-3x_coco.py'
    cfg = get_config(f'shiftwise_mm::{name}')
    assert cfg.model.backbone.type == 'shiftwise_mm.ShiftWiseNet'


@pytest.mark.parametrize('folder', FOLDERS)
def test_names_follow_the_pattern(folder):
    assert configs_of(folder)
    for name in configs_of(folder):
        match = re.fullmatch(PATTERNS[folder], name)
        assert match, name
        cfg = read(f'{folder}/{name}.py')
        backbone = cfg.model.backbone
        arch = match['backbone'].split('-')[-1]
        if backbone.type in ('shiftwise_mm.ShiftWiseNet', 'shiftwise_mm.SLaK',
                             'shiftwise_mm.ConvNeXt'):
            assert backbone.arch == arch
        if backbone.type == 'shiftwise_mm.UniRepLKNet':
            assert backbone.arch == arch[0]
        slak_style = backbone.get('style') == 'slak'
        assert slak_style == bool(
            re.search('shiftwise-(slak|shared)-', name)), name


@pytest.mark.parametrize('folder', FOLDERS)
def test_metafile_and_readme_list_every_config_once(folder):
    names = configs_of(folder)
    meta = metafile_of(folder)
    assert sorted(m['Name'] for m in meta['Models']) == names
    assert sorted(name for name, _ in rows_of(folder)) == names
    collections = {c['Name']: c for c in meta['Collections']}
    assert len(collections) == len(meta['Collections'])
    for model in meta['Models']:
        assert model['Config'] == f'configs/{folder}/{model["Name"]}.py'
        assert model['In Collection'] in collections
        assert 'Weights' not in model  # none are published from here
    assert {m['In Collection'] for m in meta['Models']} == set(collections)
    for collection in collections.values():
        assert (ROOT / collection['README']).is_file()
        assert collection['Paper']['URL'].startswith('https://arxiv.org/abs/')


@pytest.mark.parametrize('folder', FOLDERS)
def test_readme_and_metafile_tell_the_same_figures(folder):
    models = {m['Name']: m for m in metafile_of(folder)['Models']}
    for name, row in rows_of(folder):
        results = models[name].get('Results', [])
        metrics = {key: value for result in results
                   for key, value in result['Metrics'].items()}
        shown = {key: float(value) for key, value in row.items()
                 if key not in ('config', 'parameters (M)', 'figures',
                                'seconds') and value != NONE}
        assert shown == metrics, name
        source = row['figures']
        assert (source == NONE) == (not metrics), name
        if metrics:
            assert source in SOURCES, name
            assert {result['Source'] for result in results} == {source}
        assert float(row['parameters (M)']) == \
            models[name]['Metadata']['Parameters (M)']
    text = readme_of(folder)
    assert '*Figures* says whose they are' in ' '.join(text.split())
    if any(row['figures'] == 'measured here' for _, row in rows_of(folder)):
        # With device and versions.
        assert re.search(r'2 cores of .+, torch \d+\.\d+', ' '.join(
            text.split()))


ANCHORS = {  # by collection and size: top-1; box, mask; single, multi-scale
    'classification': 1, 'detection': 3, 'segmentation': 4}
ROWS = {
    'SW-T': 'shiftwise-tiny', 'SW-S': 'shiftwise-small',
    'SLaK-T (width 1.3, 51x51)': 'slak-tiny',
    'UniRepLKNet-T': 'unireplknet-tiny', 'ConvNeXt-T': 'convnext-tiny'}


@pytest.mark.parametrize('folder', ANCHORS)
def test_published_figures_are_those_of_the_record(folder):
    """With their marks; nothing else is called published."""
    text = shared_path('design', 'ANCHORS.md').read_text('utf-8')
    table = [list(row.values()) for row in tables(text) if 'Model' in row]
    record = {}
    for cells in table:
        cell = cells[ANCHORS[folder]].split(',')[0]
        mark = re.search(r'\([US]\)', cell)
        figures = re.findall(r'\d+\.\d+', cell)
        if cells[0] in ROWS and figures:
            record[ROWS[cells[0]]] = (
                list(map(float, figures)),
                'published' + (f' {mark[0]}' if mark else ''))
    shown = {}
    for name, row in rows_of(folder):
        if row['figures'].startswith('published'):
            backbone = re.fullmatch(PATTERNS[folder], name)['backbone']
            if folder == 'detection':
                assert name.startswith('cascade-mask-rcnn'), name
                assert 'ms-3x' in name
            if folder == 'segmentation':
                assert name.startswith('upernet')
            shown[backbone] = (
                [float(value) for key, value in row.items()
                 if key not in ('config', 'parameters (M)', 'figures')
                 and value != NONE], row['figures'])
    if folder == 'classification':  # only what has a config
        record = {k: v for k, v in record.items() if k in shown}
        assert set(record) == {'shiftwise-tiny', 'shiftwise-small'}
    assert shown == record


# The decoder of the fork's DINO takes 1024 channels for places, not 512.
MORE_ON_THE_FORKS = {'dino-4scale_shiftwise-tiny_12e_coco': .131072}


@pytest.mark.parametrize('folder', FOLDERS)
def test_parameters_are_counted(folder):
    more = MORE_ON_THE_FORKS if find_stack() is ONEDL else {}
    for name, row in rows_of(folder):
        count = sum(p.numel() for model in built(f'{folder}/{name}.py')
                    for p in model.parameters()) / 1e6 - more.get(name, 0)
        assert float(row['parameters (M)']) == pytest.approx(count, abs=.051)


@pytest.mark.parametrize('folder', FOLDERS)
def test_files_named_exist(folder):
    text = readme_of(folder)
    named = re.findall(r'configs/[\w/.-]+\.(?:py|yml|md)', text)
    named += re.findall(r'(?<![\w/])(?:tools|docs)/[\w/.-]+\.(?:py|md)', text)
    # upstream's own file, and the tool of another part
    named = [n for n in named if not n.startswith('configs/upernet_sw_')]
    for name in named:
        assert (ROOT / name).is_file() or name == 'tools/train.py', name
    for link in re.findall(r'\]\(([^)]+)\)', text):
        assert link.startswith('http') or \
            (ROOT / 'configs' / folder / link).is_file(), link
