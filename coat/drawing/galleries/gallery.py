"""A small gallery: a folder with a page a clip, and an index that sorts and filters them.

OUT/index.html          a row a page
OUT/0001-clip.html      ...
"""

import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from coat.drawing.html import html_document, read_asset, script_policy
from coat.manifests.errors import InputError
from coat.manifests.storage.files import write_errors
from coat.manifests.storage.urls import is_local, local_path

INDEX = "index.html"
SLUG_LETTERS = 40  # of an id in the name of its file
SHOWN_FROM = 0.001  # what is smaller is written as 0


@dataclass(frozen=True)
class GalleryPage:
    """A row of the index. `status`: in one word or two; `values`: by column, None where there is none."""

    file: str
    id: str
    seconds: float
    status: str = "ok"
    values: Mapping[str, float | str | None] = field(default_factory=dict)


def page_name(number: int, identity: str) -> str:
    """Of a page's file, from 1: no path, no surprise in any shell or file system, whatever the id is."""
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", identity)[:SLUG_LETTERS].strip("-").lower()
    return f"{number:04d}{f'-{slug}' if slug else ''}.html"


@contextmanager
def gallery_folder(out: str) -> Iterator[Path]:
    """A folder to write into, which is `out` once all is written; before that there is nothing at `out`.

    InputError where something is there already, or where `out` is no local folder.
    """
    final = check_out(out)
    making = final.with_name(f".{final.name}.{os.getpid()}.making")
    with write_errors(str(final)):
        making.mkdir(parents=True)
    try:
        yield making
        check_out(out)
        with write_errors(str(final)):
            making.replace(final)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def check_out(out: str) -> Path:
    """The folder that is to be made. InputError: see `gallery_folder`."""
    if not is_local(out):
        raise InputError(f"--out {out}: a gallery is a local folder; copy it from there")
    folder = local_path(out)
    is_empty = folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())
    if not is_empty and (folder.exists() or folder.is_symlink()):
        raise InputError(f"--out {folder}: there is something already; a gallery is written to a folder of its own")
    return folder


def gallery_index(title: str, about: str, pages: Sequence[GalleryPage]) -> bytes:
    """`about`: a line of text. Columns are those that any page has a value in, in the order in which they come."""
    script = read_asset("coat.drawing.galleries", "gallery.js")
    columns = list(dict.fromkeys(c for page in pages for c, value in page.values.items() if value is not None))
    statuses = sorted({page.status for page in pages})
    options = "".join(f"<option>{escape(status)}</option>" for status in statuses)
    heads = "".join(f'<th><button type="button">{escape(name)}</button></th>' for name in HEADS + tuple(columns))
    rows = "\n".join(row_html(page, columns) for page in pages)
    body = f"""<header>
<h1>{escape(title)}</h1>
<p class="facts">{escape(about)}</p>
<p class="filters"><input type="search" id="search" placeholder="id or any value" aria-label="filter">
<select id="status" aria-label="status"><option value="">any status</option>{options}</select>
<span id="count"></span></p>
</header>
<main><section class="list"><table id="pages"><thead><tr>{heads}</tr></thead><tbody>
{rows}
</tbody></table></section></main>
<script>{script}</script>"""
    return html_document(title, script_policy(script, ""), read_asset("coat.drawing.galleries", "gallery.css"), body)


HEADS = ("id", "seconds", "status")


def row_html(page: GalleryPage, columns: Sequence[str]) -> str:
    cells = [
        f'<td><a href="{escape(page.file)}">{escape(page.id)}</a></td>',
        cell_html(page.seconds),
        f'<td class="{"" if page.status == "ok" else "bad"}">{escape(page.status)}</td>',
        *(cell_html(page.values.get(name)) for name in columns),
    ]
    return f"<tr>{''.join(cells)}</tr>"


def cell_html(value: float | str | None) -> str:
    """`data-v`: the number that is sorted by."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "<td></td>"
    if isinstance(value, str):
        return f"<td>{escape(value)}</td>"
    return f'<td class="number" data-v="{value!r}">{f"{value:.3g}" if abs(value) >= SHOWN_FROM else 0}</td>'
