"""One HTML page of what was found: it needs no network and runs no script. Names come from strangers: escaped."""

from collections.abc import Sequence
from html import escape

from coat.drawing.html import data_url, html_document, read_asset
from coat.trainer.fidelity.pictures import pictures_of
from coat.trainer.fidelity.results import FLOOR, MEAN, RUN, SUBJECTS, ExpertFidelity, FidelityResults
from coat.trainer.fidelity.text import (
    EXPLAINED,
    cells_of,
    columns_of,
    facts_of,
    heading,
    headings_of,
    label_of,
    number,
    subject_cells,
)

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
MOST_ROWS = 130  # of the table of classes or channels


def fidelity_page(results: FidelityResults) -> bytes:
    links = "".join(f'<a href="#expert-{i}">{escape(e.expert)}</a>' for i, e in enumerate(results.experts))
    sections = "\n".join(section(i, e, results) for i, e in enumerate(results.experts))
    floor = f"; without distillation: {results.floor_run}" if results.floor_run else ""
    skipped = ", ".join(f"{n:,} {reason}" for reason, n in results.skipped.items())
    notes = "".join(f'<p class="problem">{escape(note)}</p>' for note in results.notes)
    left_out = f'<p class="facts">Left out: {escape(skipped)}</p>' if skipped else ""
    body = f"""<header><h1>How well the block hears</h1>
<p class="facts">{escape(heading(results) + floor)}</p>{left_out}{notes}
<p class="facts">What the heads say of each frame against what the experts heard there. Training mean: the best that can
be said without listening, the mean of the training's targets. Without distillation: heads that were trained on a
student which learnt nothing from the experts; what they say could be heard anyhow.</p>
<nav>{links}</nav></header>
<main>
{sections}
</main>
<footer><p>Made by <code>coat fidelity</code>. Intervals: clips are drawn anew with replacement, those of one sound
together. All columns are of the same clips and the same draws.</p></footer>"""
    return html_document("How well the block hears", POLICY, read_asset("coat.trainer.fidelity", "page.css"), body)


def section(number_: int, expert: ExpertFidelity, results: FidelityResults) -> str:
    what = (
        ", ".join(dict.fromkeys([expert.family, expert.kind]))
        + f", {expert.rate_hz:.5g} frames/s; {expert.clips:,} clips"
    )
    what += f", {expert.frames:,} frames, {expert.draws:,} draws"
    explained = EXPLAINED[expert.kind].format(present=results.present)
    facts = "".join(f'<p class="facts">{escape(fact)}</p>' for fact in facts_of(expert))
    columns = columns_of([expert])
    rows = [[label_of(name), *cells_of(expert, name, columns)] for name in expert.names]
    figures = "\n".join(
        f'<figure><figcaption>{escape(text)}</figcaption><img alt="{escape(text)}" '
        f'src="{data_url("image/png", png)}"></figure>'
        for text, png in pictures_of(expert)
    )
    return f"""<section id="expert-{number_}">
<div class="title"><h2>{escape(expert.expert)}</h2><span class="what">{escape(what)}</span></div>
<p class="facts">{escape(explained)}</p>{facts}
{table_html(["measure", *columns], rows)}
{figures}
{groups_html(expert)}{parts_html(expert)}
</section>"""


def groups_html(expert: ExpertFidelity) -> str:
    if not expert.groups:
        return ""
    subjects = [s for s in (RUN, MEAN, FLOOR) if s in expert.figures]
    columns = ["corpus", "clips", "measure", *(c for s in subjects for c in headings_of(s))]
    rows = [
        [
            group.name,
            f"{group.clips:,}",
            label_of(name),
            *(c for s in subjects for c in subject_cells(group.figures, s, name)),
        ]
        for group in expert.groups
        for name in expert.names
    ]
    return folded("By corpus", table_html(columns, rows))


def parts_html(expert: ExpertFidelity) -> str:
    parts = [part for part in expert.parts[RUN] if part.figures]
    if len(parts) < 2:
        return ""
    shown = sorted(parts, key=lambda part: -part.frames)[:MOST_ROWS]
    subjects = [s for s in (RUN, FLOOR) if s in expert.parts]
    keys = list(parts[0].figures)
    by_name = {s: {part.name: part.figures for part in expert.parts[s]} for s in subjects}
    columns = ["name", "frames", *(f"{label_of(k)}, {SUBJECTS[s]}" for k in keys for s in subjects)]
    rows = [
        [
            part.name,
            f"{part.frames:,.0f}",
            *(number(by_name[s].get(part.name, {}).get(k, float("nan"))) for k in keys for s in subjects),
        ]
        for part in shown
    ]
    rest = f" ({len(shown)} of {len(parts):,}; --json has all)" if len(parts) > len(shown) else ""
    return folded(f"One by one{rest}", table_html(columns, rows))


def folded(title: str, inner: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{inner}</details>"


def table_html(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(c)}</th>" for c in columns)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="numbers"><table><tr>{head}</tr>\n{body}\n</table></div>'
