"""docs/extend.md, followed to the letter in a copy of the sources."""
import re
import shutil

import pytest
from helpers import ROOT, run_python
from processes import run_forked

TEXT = (ROOT / 'docs/extend.md').read_text()
FORM, BACKBONE = re.findall(r'^## A .+?(?=^## |\Z)', TEXT, re.S | re.M)
BLOCK = re.compile(r'```(\w+)\n(.+?)```', re.S)


def source_of(name, tree):
    """Where a file of the page lies in the copy."""
    path = tree / name
    assert path.resolve().is_relative_to(tree)
    return path


def apply_diff(path, diff):
    """Lines with a sign: ' ' stays, '-' goes, '+' comes."""
    lines = [(line[:1], line[1:]) for line in diff.splitlines()]
    assert {sign for sign, _ in lines} <= set(' -+')
    old, new = ('\n'.join(line for sign, line in lines if sign in signs)
                for signs in (' -', ' +'))
    text = path.read_text()
    assert text.count(old) == 1, f'{path} has not, once:\n{old}'
    path.write_text(text.replace(old, new))


def follow(section, tree):
    """Does what a section says; returns its last program, and its output."""
    program = output = target = None
    end = 0
    for block in BLOCK.finditer(section):
        kind, code = block.groups()
        between = section[end:block.start()]
        end = block.end()
        named = re.findall(r'`(shiftwise_mm/[\w/]+\.py)`', between)
        if kind == 'diff':
            # Several changes of one file follow each other.
            target = named[-1] if named else target
            apply_diff(source_of(target, tree), code)
        elif kind == 'python' and code.startswith('"""'):
            path = source_of(named[-1], tree)
            assert not path.exists()
            path.write_text(code)
        elif kind == 'python':
            program = code
        else:
            output = code
    return program, output


@pytest.fixture
def tree(tmp_path):
    """The package as it is installed, from its sources."""
    clean = shutil.ignore_patterns('__pycache__', '.mim')
    shutil.copytree(ROOT / 'shiftwise_mm', tmp_path / 'shiftwise_mm',
                    ignore=clean)
    shutil.copytree(ROOT / 'kernels', tmp_path / 'shiftwise_mm/kernels',
                    ignore=clean)
    return tmp_path


@pytest.mark.parametrize('section', [FORM, BACKBONE],
                         ids=['form', 'backbone'])
def test_the_page_can_be_followed(section, tree):
    program, expected = follow(section, tree)
    program += 'import shiftwise_mm\nprint(shiftwise_mm.__file__)\n'
    *printed, where = run_python(program, tree, run=run_forked,
                                 PYTHONPATH=str(tree))
    assert where == str(tree / 'shiftwise_mm/__init__.py')
    assert printed == expected.splitlines()


def test_a_change_of_other_sources_is_told(tree):
    path = tree / 'shiftwise_mm/version.py'
    with pytest.raises(AssertionError, match='version.py has not, once'):
        apply_diff(path, ' no such line\n+another')
