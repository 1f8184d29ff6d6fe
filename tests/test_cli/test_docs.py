"""docs/tools.md: one table of all sub-commands, its examples are taken."""
import re
import shlex
from importlib import import_module

import pytest
from helpers import ROOT

from shiftwise_mm.cli.console import SUB_COMMANDS
from shiftwise_mm.config_paths import config_path

TEXT = (ROOT / 'docs/tools.md').read_text('utf-8')
ROWS = re.findall(r'^\| `([\w-]+)` \| `(.+?)` \| (.+?) \| `(.+?)` \|$', TEXT,
                  re.M)


def test_the_table_has_all_sub_commands_in_their_order():
    assert [name for name, *_ in ROWS] == list(SUB_COMMANDS)
    for name, place, *_ in ROWS:
        module = SUB_COMMANDS[name][0]
        assert place == (f'tools/{module}.py' if name != 'doctor' else
                         'python -m shiftwise_mm.doctor')


@pytest.mark.parametrize('name, command',
                         [(row[0], row[3]) for row in ROWS])
def test_the_examples_are_taken(name, command):
    program, sub, *words = shlex.split(command)
    assert (program, sub) == ('shiftwise', name)
    import_module(
        f'shiftwise_mm.cli.{SUB_COMMANDS[name][0]}').parse_args(words)
    for word in words:
        if '::' in word:
            config_path(word)


def test_links_lead_to_pages():
    for link in re.findall(r'\]\(([\w.]+)\)', TEXT):
        assert (ROOT / 'docs' / link).is_file(), link


def test_the_lines_of_python(capsys):
    code, = re.findall(r'```python\n(.+?)```', TEXT, re.S)
    scope = {}
    exec(code, scope)
    assert 'slak-tiny' in capsys.readouterr().out
    assert scope['backbone'].out_indices == (1, 2, 3)
