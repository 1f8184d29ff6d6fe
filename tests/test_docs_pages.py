"""Links of the documentation resolve; both languages have the same pages."""
import re
from pathlib import Path

import pytest
from docs_pages import (
    ONE_LANGUAGE,
    chinese_pages,
    english_pages,
    other_pages,
    read_page,
    twin_of,
)
from helpers import ROOT

ALL = [*english_pages(), *chinese_pages(), *other_pages()]
BOTH = [name for name in english_pages() if name not in ONE_LANGUAGE]


def problem_of(page, link):
    """Why a link does not lead anywhere, or None."""
    if re.match(r'(https?|mailto):', link):
        return None
    path, _, anchor = link.partition('#')
    target = (ROOT / page.name).parent / path if path else ROOT / page.name
    if not target.exists():
        return f'{link}: there is no such file'
    if not target.resolve().is_relative_to(ROOT):
        return f'{link}: outside the repository'
    if anchor and anchor not in read_page(
            str(target.resolve().relative_to(ROOT))).anchors:
        return f'{link}: there is no such heading'
    return None


@pytest.mark.parametrize('name', ALL)
def test_links_resolve(name):
    page = read_page(name)
    assert not [why for link in page.links if (why := problem_of(page, link))]


@pytest.mark.parametrize('name', ALL)
def test_files_named_exist(name):
    """Files of the project, by their paths from its root."""
    named = re.findall(
        r'(?<![\w/.])(?:tools|tests|docs|configs|kernels|shiftwise_mm|'
        r'requirements)/[\w/.-]*\w\.(?:py|sh|md|png|yml|txt)\b(?!/)',
        read_page(name).prose)
    new = {'docs/extend.md': ('fourier.py', 'dilated_net.py')}
    page = name.replace('zh_CN/', '')
    for file in named:
        assert (ROOT / file).is_file() or \
            Path(file).name in new.get(page, ()), file


def test_the_index_lists_every_page():
    for index, names in (('docs/README.md', english_pages()),
                         ('docs/zh_CN/README.md', chinese_pages())):
        links = {Path(link).name for link in read_page(index).links}
        for name in names:
            if name.startswith('docs/') and name != index:
                assert Path(name).name in links, f'{index} has no {name}'


def test_every_page_is_there_in_both_languages():
    assert set(ONE_LANGUAGE) <= set(english_pages())
    missing = {twin_of(name) for name in BOTH} ^ set(chinese_pages())
    assert not missing, 'in one language alone, without a reason in ' \
        f'ONE_LANGUAGE: {sorted(missing)}'


@pytest.mark.parametrize('name', BOTH)
def test_both_languages_have_the_same_sections(name):
    """Headings by level and order, blocks of code letter by letter."""
    english = read_page(name)
    chinese = read_page(twin_of(name))  # a missing page is an error here
    assert [level for level, _ in chinese.headings] == \
        [level for level, _ in english.headings], [
            (text, there) for (_, text), (_, there) in zip(
                english.headings, chinese.headings, strict=False)]
    for ours, theirs in zip(english.blocks, chinese.blocks, strict=False):
        assert theirs == ours
    assert len(chinese.blocks) == len(english.blocks)


@pytest.mark.parametrize('name', BOTH)
def test_both_languages_have_the_same_figures(name):
    """Rows of tables and pictures; words may differ, places may not."""
    english, chinese = (read_page(n).prose for n in (name, twin_of(name)))
    for pattern in (r'^\|.*\|$', r'!\[.*\]\((?:\.\./)*([^)]+)\)$'):
        assert len(re.findall(pattern, chinese, re.M)) == \
            len(re.findall(pattern, english, re.M)), pattern


def test_readmes_link_to_each_other():
    assert read_page('README.md').links[0] == 'README_zh-CN.md'
    assert read_page('README_zh-CN.md').links[0] == 'README.md'
