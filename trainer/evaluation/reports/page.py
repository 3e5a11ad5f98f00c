"""`coat report`: evaluations as one HTML page, which needs no network and runs no script but its own.

Questions, answers and names come from strangers and from models: as text they are escaped, in JSON no `<` is left, and
the page's policy names the digest of the one script that may run.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from coat.trainer.evaluation.reports.comparing import Comparison, sentence
from coat.trainer.evaluation.reports.figures import cost_html, groups_html, guard_html, scores_html
from coat.trainer.evaluation.reports.finished import Finished
from coat.trainer.evaluation.reports.rows_data import script_json


def report_page(
    evaluations: Sequence[Finished],
    compared: Sequence[Comparison],
    rows: Mapping[str, Any],
    audio: Sequence[str],
    notes: Sequence[str],
) -> bytes:
    """`audio`: a data URL, or the name of a file beside the page, for each clip that `rows` count."""
    script = asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; media-src data: file: 'self'; style-src 'unsafe-inline'; img-src data:; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    names = ", ".join(one.name for one in evaluations)
    labels = list(dict.fromkeys(label for one in evaluations for label in one.results.benchmarks))
    sections = [
        f"<section><h2>{escape(label)}</h2>{benchmark_html(label, evaluations, compared)}</section>" for label in labels
    ]
    clips = "".join(f'<script type="text/plain" id="clip-{i}">{escape(url)}</script>' for i, url in enumerate(audio))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>Evaluation: {escape(names)}</title>
<style>{asset("page.css")}</style>
</head>
<body>
<header>
<h1>{escape(names)}</h1>
{"".join(heading_html(one, len(evaluations) > 1) for one in evaluations)}
{"".join(f'<p class="note">{escape(note)}</p>' for note in notes)}
</header>
<main>
{"".join(sections)}
{cost_html(evaluations)}
<section id="rows"><h2>Rows</h2>{asset("rows.html")}</section>
</main>
<footer><p>Made by <code>coat report</code>. Intervals are of 95 %. <b>official</b> is the benchmark's own rule with its
flaws, so that published figures compare; <b>strict</b> wants one choice, named without doubt. A missing or empty answer
is wrong in both.</p></footer>
{clips}
<script type="application/json" id="data">{script_json(rows)}</script>
<script>{script}</script>
</body>
</html>
""".encode()


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


def asset(name: str) -> str:
    return (files("coat.trainer.evaluation.reports") / name).read_text(encoding="utf-8")
