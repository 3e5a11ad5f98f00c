"""One HTML page of statistics: it needs no network and runs no script. Channels' names come from strangers: escaped."""

from collections.abc import Sequence
from html import escape

from coat.drawing.html import data_url, definition_list, html_document, read_asset
from coat.pipeline.statistics.plots import statistics_figures
from coat.pipeline.statistics.statistics import Statistics
from coat.pipeline.statistics.text import dimension_table, list_facts, list_problems

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
MOST_ROWS = 24  # of the table of dimensions


def statistics_page(store: str, stats: Sequence[Statistics]) -> bytes:
    links = "".join(f'<a href="#set-{i}">{escape(f.spec.expert)}</a>' for i, f in enumerate(stats))
    sections = "\n".join(section(i, f) for i, f in enumerate(stats))
    title = f"Statistics of {store}"
    body = f"""<header><h1>{escape(title)}</h1><nav>{links}</nav></header>
<main>
{sections}
</main>
<footer><p>Made by <code>coat stats</code>. Deviations are of the population. NaN and infinities are counted, and left
out of all else.</p></footer>"""
    return html_document(title, POLICY, read_asset("coat.pipeline.statistics", "page.css"), body)


def section(number: int, stats: Statistics) -> str:
    spec = stats.spec
    what = f"{spec.kind}, {spec.dim} × {spec.rate_hz:.5g} frames/s as {spec.dtype}, fingerprint {spec.fingerprint}"
    faults = "".join(f'<p class="problem">{escape(text)}</p>' for text in list_problems(stats))
    drawn = statistics_figures(stats) if stats.sums.count_D.any() else []
    figures = "\n".join(
        f'<figure><figcaption>{escape(text)}</figcaption><img alt="{escape(text)}" '
        f'src="{data_url("image/png", png)}"></figure>'
        for text, png in drawn
    )
    return f"""<section id="set-{number}">
<div class="title"><h2>{escape(spec.expert)}</h2><span class="what">{escape(what)}</span></div>
{faults}{definition_list("said", list_facts(stats))}
{figures}
{table_html(stats) if stats.sums.frames else ""}
</section>"""


def table_html(stats: Statistics) -> str:
    columns, rows = dimension_table(stats, MOST_ROWS)
    head = "".join(f"<th>{escape(c)}</th>" for c in columns)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    rest = stats.spec.dim - len(rows)
    which = "most frequent" if stats.event_share_D is not None else "that move most"
    note = f'<p class="what">The {len(rows)} dimensions {which}; statistics.json has all.</p>' if rest else ""
    return f'<div class="numbers"><table><tr>{head}</tr>\n{body}\n</table></div>{note}'
