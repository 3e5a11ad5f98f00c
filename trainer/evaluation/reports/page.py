"""`coat report`: evaluations as one HTML page, which needs no network and runs no script but its own.

Questions, answers and names come from strangers and from models: as text they are escaped, in JSON no `<` is left, and
the page's policy names the digest of the one script that may run.
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from coat.drawing.html import html_document, read_asset, script_policy
from coat.trainer.evaluation.reports.comparing import Comparison, sentence
from coat.trainer.evaluation.reports.figures import cost_html, groups_html, guard_html, scores_html
from coat.trainer.evaluation.reports.finished import Finished
from coat.trainer.evaluation.reports.rows_data import script_json

HERE = "coat.trainer.evaluation.reports"


def report_page(
    evaluations: Sequence[Finished],
    compared: Sequence[Comparison],
    rows: Mapping[str, Any],
    audio: Sequence[str],
    notes: Sequence[str],
) -> bytes:
    """`audio`: a data URL, or the name of a file beside the page, for each clip that `rows` count."""
    script = read_asset(HERE, "page.js")
    names = ", ".join(one.name for one in evaluations)
    labels = list(dict.fromkeys(label for one in evaluations for label in one.results.benchmarks))
    sections = [
        f"<section><h2>{escape(label)}</h2>{benchmark_html(label, evaluations, compared)}</section>" for label in labels
    ]
    clips = "".join(f'<script type="text/plain" id="clip-{i}">{escape(url)}</script>' for i, url in enumerate(audio))
    body = f"""<header>
<h1>{escape(names)}</h1>
{"".join(heading_html(one, len(evaluations) > 1) for one in evaluations)}
{"".join(f'<p class="note">{escape(note)}</p>' for note in notes)}
</header>
<main>
{"".join(sections)}
{cost_html(evaluations)}
<section id="rows"><h2>Rows</h2>{read_asset(HERE, "rows.html")}</section>
</main>
<footer><p>Made by <code>coat report</code>. Intervals are of 95 %. <b>official</b> is the benchmark's own rule with its
flaws, so that published figures compare; <b>strict</b> wants one choice, named without doubt. A missing or empty answer
is wrong in both.</p></footer>
{clips}
<script type="application/json" id="data">{script_json(rows)}</script>
<script>{script}</script>"""
    policy = script_policy(script, "media-src data: file: 'self'")
    return html_document(f"Evaluation: {names}", policy, read_asset(HERE, "page.css"), body)


def heading_html(one: Finished, named: bool) -> str:
    name = f"<b>{escape(one.name)}</b>: " if named else ""
    deaf = one.results.hearing is not None and not one.results.hearing.hears
    return f'<p class="{"alarm" if deaf else "facts"}">{name}{escape(one.results.heading)}</p>{guard_html(one)}'


def benchmark_html(label: str, evaluations: Sequence[Finished], compared: Sequence[Comparison]) -> str:
    lines = [
        f'<li class="{"is-one" if d.is_one else "is-none"}">{escape(sentence(one, d))}</li>'
        for one in compared
        if one.benchmark == label
        for d in one.overall
    ]
    against = (
        f'<h3>Against {escape(compared[0].first.name)}</h3><ul class="compared">{"".join(lines)}</ul>' if lines else ""
    )
    return scores_html(label, evaluations) + against + groups_html(label, evaluations)
