"""docs/own_data.md: its programs, its config, the messages of the checks."""
import ast
import re

import pytest
from docs_pages import read_page
from helpers import ROOT
from miniature import options
from processes import run_forked

PAGE = read_page('docs/own_data.md')
PROGRAMS = [block.code for block in PAGE.blocks if block.kind == 'python'
            and not block.code.startswith('_base_')]
RECIPE, = [block.code for block in PAGE.blocks if block.kind == 'python'
           and block.code.startswith('_base_')]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Where the programs of the page have run, and what they printed."""
    base = tmp_path_factory.mktemp('own')
    (base / 'mine.py').write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(base)
        names = {}
        for program in PROGRAMS:
            exec(program, names)
    return base


def test_what_the_page_says_is_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for program in PROGRAMS:
        exec(program, names)
    expected = re.findall(r'[Pp]rints `(.+?)`(?: and `(.+?)`)?', PAGE.prose)
    assert capsys.readouterr().out.splitlines() == [
        line for lines in expected for line in lines if line]


def test_the_recipe_trains(folder):
    """The config with another backbone, on the image of the page."""
    from shiftwise_mm.swap import plan_swap, read_config, write_short_config
    cfg = read_config(str(folder / 'mine.py'))
    path = write_short_config(cfg, plan_swap(cfg, 'shiftwise-nano'),
                              str(folder / 'mine.py'), str(folder))
    done = run_forked(
        ROOT / 'tools/train.py', path.name, '--auto-scale-lr',
        '--cfg-options', *options(path), 'train_dataloader.num_workers=0',
        'val_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        'val_dataloader.persistent_workers=False', cwd=folder, merge=True)
    assert done.returncode == 0, done.stdout[-3000:]
    # A detector that has learnt nothing may find nothing.
    assert re.search('mAP|results of the whole dataset is empty',
                     done.stdout), done.stdout[-3000:]


def texts_of(path):
    """Strings of a source, joined as Python joins them; a gap for values."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield ''.join(part.value if isinstance(part, ast.Constant)
                          else '\0' for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_the_messages_explained_are_those_of_the_checks():
    texts = [text for path in (ROOT / 'shiftwise_mm/datasets').glob('*.py')
             for text in texts_of(path)]
    rows = re.findall(r'^\| `(.+?)`.* \|.+\|$', PAGE.prose, re.M)
    messages = [row for row in rows if row not in (
        'images', 'annotations', 'categories')]
    assert len(messages) > 20
    for message in messages:  # an ellipsis stands for a value
        parts = [part.strip() for part in message.split('...')]
        pattern = r'[^\n]*?'.join(map(re.escape, parts))
        assert any(re.search(pattern, text) for text in texts), message


def test_a_segmentors_data_in_a_config_for_ade20k(folder):
    """Its own type refuses other classes; the one of the page takes them."""
    from mmengine.registry import DefaultScope
    from mmseg.registry import DATASETS

    from shiftwise_mm.swap import read_config
    dataset = read_config(
        'mmseg::_base_/datasets/ade20k.py').train_dataloader.dataset
    dataset.update(
        data_root=str(folder / 'maps'), metainfo=dict(classes=('no', 'box')),
        data_prefix=dict(img_path='images/train',
                         seg_map_path='annotations/train'))
    dataset.pipeline = [
        step if step.type != 'LoadAnnotations' else
        dict(type='LoadAnnotations', reduce_zero_label=False)
        for step in dataset.pipeline[:2]]
    words, = re.findall(r"`type='(BaseSegDataset)'`", PAGE.prose)
    assert '`reduce_zero_label=False`' in PAGE.prose
    with DefaultScope.overwrite_default_scope('mmseg'):
        with pytest.raises(ValueError, match='not a subset of classes'):
            DATASETS.build(dataset)
        labels = DATASETS.build({**dataset, 'type': words})[0]['gt_seg_map']
    assert set(labels.flat) == {0, 1}
