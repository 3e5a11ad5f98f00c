"""The page at the end: each stage with its command, what it left, and links to its reports. It needs no network.

Names and figures come from files of strangers: they are escaped. Links are relative, so the folder can move.
"""

import os
from collections.abc import Sequence
from html import escape
from urllib.parse import quote

from coat.drawing.html import html_document, read_asset
from coat.drawing.text import duration_text
from coat.manifests import storage
from coat.recipe.facts import facts_of, links_of
from coat.recipe.notes import Notes
from coat.recipe.running import MADE_BY, PAGE, StageResult
from coat.recipe.stages import Stage

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_page(notes: Notes, stages: Sequence[Stage], results: Sequence[StageResult]) -> str:
    """`out/index.html`; its path."""
    recipe = notes.recipe
    path = storage.join(str(recipe.out), PAGE)
    rows = "\n".join(row(notes, stage, result) for stage, result in zip(stages, results, strict=True))
    known = [r.seconds for r in results if r.seconds is not None]
    body = f"""<header><h1>{escape(recipe.title)}</h1>
<p class="facts">{escape(recipe.label)}: {len(stages)} stages, {escape(duration_text(sum(known)))} of work. Commands
run in {escape(str(recipe.folder))}.</p></header>
<main><section><table>
<tr><th>stage</th><th>time</th><th>what it left</th><th>open</th></tr>
{rows}
</table></section></main>
<footer><p>{MADE_BY}.</p></footer>"""
    storage.write_bytes(path, html_document(recipe.title, POLICY, read_asset("coat.recipe", "page.css"), body))
    return path


def row(notes: Notes, stage: Stage, result: StageResult) -> str:
    state = result.outcome if result.outcome == "not run" else ""
    time = duration_text(result.seconds) if result.seconds is not None else state
    facts = "".join(f"<li>{escape(fact)}</li>" for fact in facts_of(stage, notes))
    links = "".join(
        f'<li><a href="{escape(quote(os.path.relpath(url, notes.recipe.out)))}">{escape(name)}</a></li>'
        for name, url in links_of(stage, notes).items()
    )
    what = f"{escape(stage.name)}<br><code>{escape(result.command)}</code>"
    cells = [f"<td>{what}</td>", f'<td class="time">{escape(time)}</td>', f"<td><ul>{facts}</ul></td>"]
    return "<tr>" + "".join([*cells, f"<td><ul>{links}</ul></td>"]) + "</tr>"
