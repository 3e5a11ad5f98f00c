"""What is different between Markdown as repositories show it, which our pages are written for, and Python-Markdown."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOT_PAGES = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
}  # pages of the site that lie beside the README

ITEM = re.compile(r"([-*]|\d+\.) ")
FENCE = re.compile(r" *(```|~~~)")
MARK = re.compile(
    r"^<!-- (blocks not run|not run|run).*? -->\n", flags=re.MULTILINE
)  # for tests/integration/doc_blocks.py


def for_python_markdown(text: str) -> str:
    """A blank line before each list that follows a line of text: Python-Markdown takes it for text otherwise."""
    lines: list[str] = []
    fenced = False
    before = ""
    for line in MARK.sub("", text).splitlines():
        if FENCE.match(line):
            fenced = not fenced
        if not fenced and ITEM.match(line) and before.strip() and not in_list(lines):
            lines.append("")
        lines.append(line)
        before = line
    return "\n".join(lines) + "\n"


def in_list(lines: list[str]) -> bool:
    """Whether the last paragraph is of a list: an item, or a line that goes on with one."""
    for line in reversed(lines):
        if not line.strip():
            return False
        if ITEM.match(line.lstrip()):
            return True
    return False


def root_pages() -> dict[str, str]:
    """The documents beside the README, with their links into docs/ as the site has them."""
    return {page: of_root((ROOT / file).read_text(encoding="utf-8")) for page, file in ROOT_PAGES.items()}


def of_root(text: str) -> str:
    text = re.sub(r"\]\(docs/([\w./#-]+)\)", r"](\1)", text)
    for page, file in ROOT_PAGES.items():
        text = text.replace(f"]({file})", f"]({page})")
    return text.replace("](README.md)", "](index.md)")


def cell(text: str) -> str:
    """Text in a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
