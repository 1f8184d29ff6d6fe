"""Every Python block of the documentation is run, here or by a test."""
import re

import pytest
from docs_commands import test_exists
from docs_pages import chinese_pages, english_pages, other_pages, read_page
from helpers import run_python
from processes import run_forked

DOCS = 'tests/test_docs.py::'
FOLLOWED = 'tests/test_extend_docs.py::test_the_page_can_be_followed'
SWAPPED = ('tests/test_swap/test_docs.py::'
           'test_the_examples_print_and_write_what_is_shown')
OWN = 'tests/test_own_data_docs.py::'
# How the blocks of each page are run, in their order: None is here, else the
# id of a test.
TABLE = {
    'README.md': (
        DOCS + 'test_the_config_of_the_readme_trains_a_step',
        DOCS + 'test_the_readme_loads_published_weights',
        DOCS + 'test_hooks_of_the_docs_are_built'),
    'docs/checkpoints.md': (DOCS + 'test_hooks_of_the_docs_are_built', ),
    'docs/deploy.md': (DOCS + 'test_hooks_of_the_docs_are_built', None),
    'docs/extend.md': (FOLLOWED, ) * 4,
    'docs/operator.md': (None, None),
    'docs/own_data.md': (
        *[OWN + 'test_what_the_page_says_is_printed'] * 3,
        OWN + 'test_the_recipe_trains'),
    'docs/quick_start.md': (None, ),
    'docs/sparsity.md': (DOCS + 'test_hooks_of_the_docs_are_built', ),
    'docs/swap_backbone.md': (
        *[SWAPPED] * 3,
        'tests/test_swap/test_docs.py::test_the_lines_of_python'),
    'docs/tools.md': (
        'tests/test_cli/test_docs.py::test_the_lines_of_python', ),
    'docs/training.md': (
        'tests/test_training_docs.py::'
        'test_the_strategy_of_the_text_is_known', ),
}


def blocks_of(name):
    return [block for block in read_page(name).blocks
            if block.kind == 'python']


# The same blocks stand in the Chinese pages; see test_docs_pages.py.
@pytest.mark.parametrize('name', [*english_pages(), *other_pages()])
def test_every_block_is_run(name):
    tests = TABLE.get(name, ())
    assert len(blocks_of(name)) == len(tests), f'{name}: see TABLE'
    assert all(test_exists(test) for test in tests if test)


def test_blocks_in_chinese_are_among_those():
    ours = {block.code for name in TABLE for block in blocks_of(name)}
    for name in chinese_pages():
        for block in blocks_of(name):
            assert block.code in ours, name


def test_the_table_has_no_other_pages():
    assert set(TABLE) <= {*english_pages(), *other_pages()}


@pytest.mark.parametrize(
    'name', [name for name, tests in TABLE.items() if None in tests])
def test_it_runs_and_prints_what_the_page_says(name, tmp_path):
    code = '\n'.join(block.code for block, test in zip(
        blocks_of(name), TABLE[name], strict=True) if test is None)
    printed = run_python(code, tmp_path, run=run_forked)
    said = re.search(r'^prints (`.+?)(?:\. |\.$)', read_page(name).prose,
                     re.M | re.S)
    expected = re.findall('`(.+?)`', said[1]) if said else []
    assert printed[:len(expected)] == expected
