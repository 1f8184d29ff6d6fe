"""The pages of the documentation: headings, blocks of code, links."""
from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from helpers import ROOT

# Pages in English alone, and why.
ONE_LANGUAGE = {
    'docs/swaps.md': 'generated: its sentences are those that the tool says',
}


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        kind: what stands behind the fence: ``'bash'``, ``'python'``, ...
        code: its lines.
        before: the text between the block before (or the start) and it.
    """

    kind: str
    code: str
    before: str = field(compare=False)


@dataclass(frozen=True)
class Page:
    """A page, read.

    Attributes:
        name: path in the repository.
        headings: level and text of each, in order.
        blocks: its fenced blocks.
        links: targets of links and pictures.
        prose: text without the blocks.
    """

    name: str
    headings: tuple[tuple[int, str], ...]
    blocks: tuple[Block, ...]
    links: tuple[str, ...]
    prose: str

    @property
    def anchors(self) -> set[str]:
        """What can follow ``#`` in a link, as GitHub makes it."""
        found: dict[str, int] = {}
        for _, text in self.headings:
            text = re.sub(r'\[(.+?)\]\(.+?\)', r'\1', text)
            slug = re.sub(r'[^\w\- ]', '', text.lower()).replace(' ', '-')
            count = found.get(slug, 0)
            found[slug] = count + 1
            if count:
                found[f'{slug}-{count}'] = 1
        return set(found)


@cache
def read_page(name: str) -> Page:
    """Reads one page; fences may be nested in lists."""
    headings, blocks, prose, between = [], [], [], []
    kind = code = None
    for line in (ROOT / name).read_text('utf-8').splitlines():
        fence = re.fullmatch(r'\s*```(\w*)', line)
        if kind is not None and fence:
            blocks.append(Block(kind, '\n'.join(code), '\n'.join(between)))
            kind, between = None, []
        elif kind is not None:
            code.append(line)
        elif fence:
            kind, code = fence[1], []
        else:
            heading = re.fullmatch(r'(#+) (.+)', line)
            if heading:
                headings.append((len(heading[1]), heading[2]))
            prose.append(line)
            between.append(line)
    assert kind is None, f'{name}: a block without an end'
    text = '\n'.join(prose)
    return Page(name, tuple(headings), tuple(blocks),
                tuple(re.findall(r'\]\(([^)\s]+)\)', text)), text)


def english_pages() -> list[str]:
    """``README.md`` and what lies in ``docs``."""
    return ['README.md', *sorted(f'docs/{path.name}' for path in
                                 (ROOT / 'docs').glob('*.md'))]


def chinese_pages() -> list[str]:
    """``README_zh-CN.md`` and what lies in ``docs/zh_CN``."""
    return [f'docs/zh_CN/{path.name}' if path.parent.name == 'zh_CN'
            else path.name for path in sorted(
                [*ROOT.glob('README_zh-CN.md'),
                 *(ROOT / 'docs/zh_CN').glob('*.md')])]


def other_pages() -> list[str]:
    """What else is written for readers, in English."""
    return ['CONTRIBUTING.md', 'CHANGELOG.md', *sorted(
        str(path.relative_to(ROOT))
        for path in ROOT.glob('configs/*/README.md'))]


def twin_of(name: str) -> str:
    """The same page in Chinese."""
    return 'README_zh-CN.md' if name == 'README.md' else \
        str(Path('docs/zh_CN', Path(name).name))


def commands_of(page: Page) -> list[str]:
    """Each command of the page's ``bash`` blocks, on one line.

    Without comments. Variables (``NAME=value`` on a line of its own) and
    functions (``name() { body; }``) of a block are put in.
    """
    return [command for block in page.blocks if block.kind == 'bash'
            for command in _commands(block.code)]


def _commands(code: str) -> list[str]:
    found, variables, functions = [], {}, {}
    for line in re.sub(r'\\\n\s*', '', code).splitlines():
        line = re.sub(r'(^|\s+)#.*', '', line).strip()
        for name, value in variables.items():
            line = re.sub(rf'\${name}\b', value, line)
        name, _, rest = line.partition(' ')
        if re.fullmatch(r'\w+=\S+', line):
            variables.update([line.split('=', 1)])
        elif function := re.fullmatch(r'(\w+)\(\) \{ (.+); \}', line):
            functions[function[1]] = function[2]
        elif name in functions:
            words = shlex.split(rest)
            found.append(re.sub(
                r'"?\$(\d)"?', lambda m, words=words: words[int(m[1]) - 1],
                functions[name]))
        elif line:
            found.append(line)
    return found
