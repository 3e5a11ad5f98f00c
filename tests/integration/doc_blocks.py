"""The fenced blocks of the README and of docs/, and what a test knows of them.

A block of shell or Python is run by a test, or says why not, in a comment of HTML:

    <!-- not run: needs a GPU -->                 the block that follows
    <!-- blocks not run: they name your data -->  all of the page that say nothing themselves
    <!-- run by test_a_page_from_python -->       of test_docs.py, which looks for the block
    <!-- run -->                                  with its page, where the page says that its blocks are not
"""

import re
import shlex
import string
from collections.abc import Iterator
from dataclasses import dataclass

from tests.integration.helpers import ROOT

SHELL = ("sh", "bash", "console")
LANGUAGES = (*SHELL, "python", "toml", "json", "")  # the last: what is printed, or drawn
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", flags=re.DOTALL | re.MULTILINE)
MARK = re.compile(r"<!-- (not run: .+|run|run by \w+) -->\s*\Z")
PAGE_MARK = re.compile(r"<!-- blocks (not run: .+) -->")


@dataclass(frozen=True)
class Block:
    """`mark`: how it is run; empty: with its page. `save_as`: the file that the text before it names."""

    page: str
    line: int
    language: str
    text: str
    mark: str
    save_as: str

    @property
    def is_code(self) -> bool:
        return self.language in (*SHELL, "python")

    @property
    def is_run_with_its_page(self) -> bool:
        return self.is_code and self.mark in ("", "run")

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    return [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md")),
    ]


def blocks_of(page: str) -> list[Block]:
    text = (ROOT / page).read_text(encoding="utf-8")
    of_page = PAGE_MARK.search(text)
    found = []
    for match in FENCE.finditer(text):
        before = text[: match.start()]
        own = MARK.search(before)
        mark = own[1] if own else of_page[1] if of_page else ""
        saved = re.search(r"Save this as `([\w.]+)`[^\n]*\n(?:[^\n]+\n)*\n*\Z", before)
        found.append(Block(page, before.count("\n") + 2, match[1], match[2], mark, saved[1] if saved else ""))
    return found


def commands(block: Block) -> Iterator[list[str]]:
    """The words of each command of a shell block; variables that the block itself sets have their values."""
    values: dict[str, str] = {}
    for line in block.text.replace("\\\n", " ").splitlines():
        expanded = string.Template(line).safe_substitute(values)
        words = shlex.split(expanded, comments=True)
        while words and re.fullmatch(r"[A-Za-z_]\w*=.*", words[0], flags=re.DOTALL):
            name, _, value = words.pop(0).partition("=")
            values[name] = value
        command: list[str] = []
        for before, word in zip(["", *words], [*words, "&&"], strict=True):
            if word in ("&&", "|", ";", "--", ">"):
                if command:
                    yield command
                command = []
            elif before != ">":  # that is a file
                command.append(word)


def script_of(page: str) -> str:
    """What runs a page's blocks, in their order, as one script of bash."""
    parts = ['set -e\ncoat() { $PYTHON -m coat "$@"; }\n']
    for block in blocks_of(page):
        if not block.is_run_with_its_page:
            continue
        parts.append(f"echo '== {block}' >&2\n")
        if block.language == "python":
            file = block.save_as or f"block_{block.line}.py"
            parts.append(f"cat > {file} <<'END-OF-BLOCK'\n{block.text}END-OF-BLOCK\n")
            if not block.save_as:
                parts.append(f'$PYTHON -c "$(cat {file})"\n')
        else:
            parts.append(block.text)
    return "".join(parts)


def make_targets() -> set[str]:
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
