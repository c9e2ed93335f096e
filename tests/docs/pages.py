"""What the pages say: blocks of code with what is to become of them, commands, links, headings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

_BLOCK = re.compile(
    r"(?P<marks>(?:^<!--[^\n]*-->\n)*)"
    r"^(?P<fence>```)(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<code>.*?)^```$",
    re.M | re.S,
)
# Words that stand before a command, and what its own arguments begin behind.
_ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")
_AS_MODULE = ["-m", "trpexport"]


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: file of the page.
        line: of its first fence, counted from 1.
        language: behind the fence; empty if none is named.
        title: name of the file that it is the content of, if it is one.
        code: its text.
        not_run: why no test runs it; None where one does.
        exit_code: that its last command ends with.
    """

    page: Path
    line: int
    language: str
    title: str | None
    code: str
    not_run: str | None
    exit_code: int

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The commands of a shell block, in words."""
        joined = re.sub(r"\\\n\s*", " ", self.code)
        found = []
        for line in joined.splitlines():
            words = shlex.split(line, comments=True)
            while "&&" in words:
                place = words.index("&&")
                found.append(words[:place])
                words = words[place + 1 :]
            found.append(words)
        return [words for words in found if words]


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for found in _BLOCK.finditer(text):
        not_run = re.search(r"<!-- not run: (.+?) -->", found["marks"])
        exits = re.search(r"<!-- exits with (\d+) -->", found["marks"])
        yield Block(
            page,
            text.count("\n", 0, found.start("fence")) + 1,
            found["language"],
            found["title"],
            found["code"],
            not_run[1] if not_run else None,
            int(exits[1]) if exits else 0,
        )


def shell_blocks(pages: Sequence[Path] = PAGES) -> list[Block]:
    """Return the blocks of commands of all pages."""
    return [block for page in pages for block in blocks(page) if block.language == "sh"]


def arguments(words: Sequence[str]) -> list[str] | None:
    """Return what is typed behind ``trpexport``; None where another program is called."""
    words = list(words)
    while words and _ASSIGNMENT.fullmatch(words[0]):
        words.pop(0)
    for place in range(len(words) - 1):  # python -m trpexport, torchrun ... -m trpexport
        if words[place : place + 2] == _AS_MODULE:
            return words[place + 2 :]
    if not words or Path(words[0]).name != "trpexport":
        return None
    end = words.index(">") if ">" in words else len(words)
    return words[1:end]


def prose(page: Path) -> str:
    """Return the text of a page without its fenced and indented blocks."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    return re.sub(r"(?:^|(?<=\n))(?:    .*\n)+", "", text)


def slug(heading: str) -> str:
    """Return the anchor of a heading, as GitHub and the site make it."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain))


def anchors(page: Path) -> set[str]:
    """Return where links into a page can lead."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.M)}
