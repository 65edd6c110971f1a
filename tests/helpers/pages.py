"""Commands and code that the documentation's pages show."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from project.__main__ import TOOLS
from tests.helpers.configs import ROOT

PAGES = ('*.md', 'docs/*.md', 'configs/*/README.md', 'backbone_pth/README.md')
_FENCED = re.compile(r'^( *)```(\w+)\n(.*?)^\1```', re.M | re.S)
_OPTIONAL = re.compile(r' *\[[^][]*\]')


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: Path of the page from the repository's root.
        line: Line of the page that it begins at.
        language: Of the fence.
        text: Without the fence.
    """

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f'{self.page}:{self.line}'

    @property
    def commands(self) -> list[str]:
        """Its command lines, each on one line and without comments."""
        joined = re.sub(r'\\\n *', '', self.text)
        lines = (re.sub(r'(^| +)#.*', '', x) for x in joined.splitlines())
        return [line.strip() for line in lines if line.strip()]


def blocks(*languages: str) -> Iterator[Block]:
    """Read the fenced blocks of all pages.

    Args:
        *languages: Which ones.

    Yields:
        Block: Each block, page by page.
    """
    paths = sorted(path for glob in PAGES for path in ROOT.glob(glob))
    for path in paths:
        text = path.read_text()
        for found in _FENCED.finditer(text):
            if found[2] in languages:
                line = text.count('\n', 0, found.start()) + 1
                indent = re.compile(f'^{found[1]}', re.M)
                yield Block(
                    str(path.relative_to(ROOT)),
                    line,
                    found[2],
                    indent.sub('', found[3]),
                )


def without_optional(command: str) -> str:
    """Leave out what stands in brackets, as ``[--resume | --overwrite]``."""
    while (shorter := _OPTIONAL.sub('', command)) != command:
        command = shorter
    return command


def script_of(command: str) -> Path | None:
    """The script of this repository that a command starts."""
    by_name = re.search(r'python -m project ([\w-]+)', command)
    if by_name and by_name[1] in TOOLS:
        return ROOT / 'tools' / TOOLS[by_name[1]]
    found = re.search(r'(?:^|\s)(?:\./)?(tools/\S+|dist_\w+\.sh)', command)
    return ROOT / found[1] if found else None
