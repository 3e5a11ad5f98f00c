"""The page of `coat intervene`: tables of figures with their intervals. It needs no network and runs no script.

Groups, ids and names of runs come from strangers: they are escaped.
"""

from collections.abc import Mapping, Sequence
from html import escape

from coat.analysis.interventions.figures import Figure, Line
from coat.analysis.interventions.intervene import Results
from coat.analysis.interventions.kinds import UNTOUCHED, Intervention
from coat.drawing.html import html_document, read_asset
from coat.trainer.evaluation.reports.figures import PLOT, plot, row_html, table_html

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
REPORTS = "coat.trainer.evaluation.reports"  # whose tables these are
STYLE = """
.scores { font-size: 13px; }
.scores td, .scores th { padding-right: 8px; }
.scores td:first-child { white-space: nowrap; }
"""
PERCENT = ("accuracy", "lost", "changed", "donor", "exact")
SHOWN = ("changed", "donor", "kl", "shift")  # beside accuracy
COMPARED = ("accuracy", "lost", "changed", "donor", "kl", "shift")
NAMES = {
    "accuracy": "accuracy %", "lost": "lost, points", "changed": "changed %", "donor": "donor's %", "exact": "exact %",
    "kl": "KL, nats", "log_prob": "log-prob", "shift": "shift",
}  # fmt: skip
MEANINGS = {
    "accuracy": "right answers",
    "changed": "answers that are others than untouched",
    "donor's": "answers that are right of the donor's sound and wrong of the row's own, of rows where these differ",
    "KL": "of the distribution of a token of the true response, from the untouched one",
    "shift": "how far the state that begins the answer moves, as a share of how far it is from the donor's",
}


def label_of(name: str) -> str:
    return "untouched" if name == UNTOUCHED else Intervention.parse(name).label


def value_text(name: str, figure: Figure) -> str:
    if figure.value is None:
        return "-"
    return f"{100 * figure.value:.1f}" if name in PERCENT else f"{figure.value:.3f}"


def cells(line: Line, names: Sequence[str]) -> list[str]:
    """Of what is untouched nothing has changed: that needs no figures."""
    empty = ("changed", "kl", "shift") if line.intervention == UNTOUCHED else ()
    return ["-" if name in empty else cell(name, line.figures[name]) for name in names]


def interval_text(name: str, figure: Figure) -> str:
    if figure.interval is None:
        return ""
    low, high = (value_text(name, Figure(v, None, 1)) for v in figure.interval)
    return f"{low} to {high}"


def cell(name: str, figure: Figure) -> str:
    """`40.0 (31.2 to 48.9)`."""
    interval = interval_text(name, figure)
    return value_text(name, figure) + (f" ({interval})" if interval else "")


def is_one(figure: Figure) -> bool:
    """Whether a difference's interval leaves out 0."""
    return figure.interval is not None and (figure.interval[0] > 0 or figure.interval[1] < 0)


def title_of(results: Results) -> str:
    return f"What {results.head['run']} uses, at step {results.head['step']}"


def facts_of(results: Results) -> list[str]:
    head, skipped = results.head, results.skipped
    if (pairs := head["pairs"]) is not None:
        asked = f"{results.rows:,} questions about minimal pairs that differ in {pairs['factor']}"
    else:
        asked = f"{results.rows:,} rows of {', '.join(one['path'] for one in head['shards'])}"
    left = f"; left out: {', '.join(f'{n:,} {reason}' for reason, n in skipped.items())}" if skipped else ""
    layers, donors = ", ".join(map(str, head["layers"])), head["donor"]
    answers = "choices by their probability, other responses token by token"
    if head["max_new_tokens"]:
        answers = f"generated greedily, up to {head['max_new_tokens']} tokens, and read by the strict rule"
    how = f"donors are named by {donors}" if donors else f"donors and means are of pools of {head['pool']} rows"
    return [f"{asked}, {results.clips:,} clips{left}", f"At the input of layers {layers}; {how}", f"Answers: {answers}"]


def page_html(results: Results) -> bytes:
    title = title_of(results)
    facts = "".join(f'<p class="facts">{escape(fact)}</p>' for fact in facts_of(results))
    meanings = "; ".join(f"<b>{escape(name)}</b>: {escape(text)}" for name, text in MEANINGS.items())
    groups = list(dict.fromkeys(line.group for line in results.lines))
    sections = "".join(section_html(group, results) for group in groups)
    body = f"""<header><h1>{escape(title)}</h1>{facts}</header>
<main>{sections}</main>
<footer><p>Made by <code>coat intervene</code>. Intervals are of 95 %, over clips. {meanings}. Replaced states are none
that training has shown: zeros, means and noise may confuse a student that reads nothing of the block, so that a change
under them alone is no proof that the block is read; that answers become the donor's is.</p></footer>"""
    return html_document(title, POLICY, read_asset(REPORTS, "page.css") + STYLE, body)


def section_html(group: str, results: Results) -> str:
    lines = [line for line in results.lines if line.group == group]
    name = f"{results.by}: {group}" if group else "All rows"
    compared = against_html(lines, str(results.against["run"])) if results.against is not None else ""
    return f"<section><h2>{escape(name)}</h2>{lines_html(lines)}{compared}</section>"


def lines_html(lines: Sequence[Line]) -> str:
    rows = []
    for line in lines:
        accuracy, style = line.figures["accuracy"], "reference" if line.intervention == UNTOUCHED else ""
        numbers = [f"{line.rows:,}", *cells(line, (*SHOWN, "accuracy"))]
        dot = "" if accuracy.value is None else plot(accuracy.value, accuracy.interval)
        rows.append(row_html(style, [label_of(line.intervention)], numbers, dot or "-"))
    columns = ["", "rows", *(NAMES[name] for name in SHOWN), NAMES["accuracy"], PLOT]
    return table_html(columns, rows, range(1, len(columns) - 1))


def against_html(lines: Sequence[Line], other: str) -> str:
    """Differences; those whose interval leaves out 0 are marked."""
    rows = [
        row_html("", [label_of(line.intervention)], [difference_text(name, line.against) for name in COMPARED])
        for line in lines
        if line.against is not None and line.against["accuracy"].rows
    ]
    if not rows:
        return ""
    table = table_html(["", *(NAMES[name] for name in COMPARED)], rows, range(1, len(COMPARED) + 1))
    return f"<h3>Less what {escape(other)} has, on rows of both (*: the interval leaves out 0)</h3>{table}"


def difference_text(name: str, figures: Mapping[str, Figure]) -> str:
    return cell(name, figures[name]) + (" *" if is_one(figures[name]) else "")
