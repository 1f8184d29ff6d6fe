"""The examples of docs/swap_backbone.md, as they are printed there."""
import importlib.util
import itertools
import re
import shlex

import pytest
import torch
from helpers import ROOT

from shiftwise_mm.models import ShiftWiseNet
from shiftwise_mm.swap import BACKBONES

TEXT = (ROOT / 'docs/swap_backbone.md').read_text()
CONSOLES = re.findall(
    r'```console\n\$ python (tools/\S+) (.+)\n((?:.*\n)+?)```', TEXT)
# A file's name, not more than two lines above its content.
FILES = dict(re.findall(r'^`(\S+\.py)`[^\n]*\n(?:[^\n]+\n)?\n'
                        r'```python\n(.+?)```', TEXT, re.S | re.M))
MEASURED = re.compile(r'in [\d.]+ seconds|loss [\d.]+')


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'mine.py').write_text(FILES['mine.py'])
    torch.save(ShiftWiseNet('tiny').state_dict(), 'SW-tiny.pth')
    return tmp_path


def test_the_examples_print_and_write_what_is_shown(folder, capsys):
    codes = []
    for tool, words, expected in CONSOLES:
        spec = importlib.util.spec_from_file_location('tool', ROOT / tool)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with pytest.raises(SystemExit) as caught:
            module.main(shlex.split(words))
        codes.append(caught.value.code)
        printed = capsys.readouterr()
        assert MEASURED.sub('', printed.out + printed.err) == \
            MEASURED.sub('', expected)
    assert codes == [0, 0, 2]
    assert len(FILES) == 3
    for name, text in FILES.items():
        assert (folder / name).read_text() == text


def test_the_lines_of_python(folder, capsys):
    code, = re.findall(r'```python\n(from mmengine.+?)```', TEXT, re.S)
    printed, = re.findall(r'prints `(.+?)`', TEXT, re.S)
    exec(code, {})
    assert capsys.readouterr().out.strip() == ' '.join(printed.split())


def test_all_names_are_there():
    listed = re.findall(r'`([\w-]+)-\{([\w,]+)\}`', TEXT)
    names = itertools.chain.from_iterable(
        [f'{stem}-{arch}' for arch in archs.split(',')]
        for stem, archs in listed)
    assert list(names) == list(BACKBONES)
