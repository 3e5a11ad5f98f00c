"""Probes as one HTML page: no network, no script. Names of runs, labels and classes come from strangers: escaped."""

from collections.abc import Sequence
from html import escape

from coat.analysis.probing.plots import DPI, heat_map
from coat.analysis.probing.results import Probes, TargetFacts
from coat.analysis.probing.scores import Figure, Score
from coat.drawing.html import data_url, definition_list, html_document

CSS_DPI = 96
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """
.maps img { max-width: 100%; height: auto; }
.maps { margin: 6px 0; overflow-x: auto; }
.numbers { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 2px 14px 2px 0; text-align: left; white-space: nowrap; }
th { color: var(--soft); font-weight: 500; border-bottom: 1px solid var(--line); }
details summary { cursor: pointer; color: var(--soft); margin: 6px 0; }
section .what { margin: 4px 0; }
"""


def probes_page(probes: Probes) -> bytes:
    links = "".join(f'<a href="#target-{n}">{escape(t.name)}</a>' for n, t in enumerate(probes.targets))
    sections = "\n".join(section(probes, n, target) for n, target in enumerate(probes.targets))
    faults = "".join(
        f'<p class="problem">{escape(name)}: not probed, it {escape(why)}</p>' for name, why in probes.problems.items()
    )
    faults += "".join(f'<p class="problem">{escape(warning)}</p>' for warning in probes.warnings)
    title = f"What linear probes read off {', '.join(one.name for one in probes.subjects)}"
    body = f"""<header><h1>{escape(title)}</h1>
<p class="facts">{escape(facts_line(probes))}</p>
<nav>{links}</nav></header>
<main>
<section>{definition_list("said", subject_facts(probes))}{faults}</section>
{sections}
</main>
<footer><p>Made by <code>coat probe</code>. A probe shows what a linear map can find in the states, not that the student
uses it. Selectivity: the score less that of the same probe on shuffled targets. In brackets: 95 % of bootstrap draws of
clips; the probes are not fitted again in them. The best of many layers is a little better by chance alone.</p>
</footer>"""
    return html_document(title, POLICY, STYLE, body)


def facts_line(probes: Probes) -> str:
    s = probes.settings
    by = f" by {s.folds_by}" if s.folds_by else ""
    rows = "a row a position where it has a time" if s.frames else "a row a clip"
    return f"{probes.clips:,} samples in {probes.groups:,} groups of {s.shards}; {s.folds} folds{by}; {rows}"


def subject_facts(probes: Probes) -> dict[str, str]:
    found = {}
    for one, layers, dim, skipped in zip(probes.subjects, probes.layers, probes.dims, probes.skipped, strict=True):
        left_out = f"; left out: {', '.join(f'{n} {reason}' for reason, n in sorted(skipped.items()))}"
        found[one.name] = f"{one.kind}, {layers} layers of {dim}{left_out if skipped else ''}"
    return found


def metric_text(target: TargetFacts) -> str:
    if target.metric == "r2":
        columns = f", {target.columns} columns" if target.columns > 1 else ""
        return f"R² over {target.clips:,} clips{columns}"
    return f"accuracy over {target.clips:,} clips, {len(target.classes)} classes, the most frequent {target.chance:.0%}"


def section(probes: Probes, number: int, target: TargetFacts) -> str:
    own = [score for score in probes.scores if score.target == target.name]
    classes = f'<p class="what">{escape(", ".join(target.classes[:24]))}</p>' if target.classes else ""
    picture = heat_map(probes, target.name)
    width = round(int.from_bytes(picture[16:20]) * CSS_DPI / DPI)  # of a PNG's header
    best = table_html(probes, best_layers(own))
    every = f"<details><summary>All {len(own)} figures</summary>{table_html(probes, own)}</details>"
    alt = escape(f"{target.name}: score and selectivity by layer and position")
    return f"""<section id="target-{number}">
<div class="title"><h2>{escape(target.name)}</h2><span class="what">{escape(metric_text(target))}</span></div>
{classes}<div class="maps"><img alt="{alt}" width="{width}" src="{data_url("image/png", picture)}"></div>
<p class="what">The best layer of each position</p>
{best}
{every}
</section>"""


def best_layers(scores: Sequence[Score]) -> list[Score]:
    """Of each subject, target and place the score that is highest, the lowest layer first."""
    found: dict[tuple[int, str, str], Score] = {}
    for score in scores:
        key = (score.subject, score.target, score.place)
        if key not in found or value_of(score) > value_of(found[key]):
            found[key] = score
    return list(found.values())


def value_of(score: Score) -> float:
    return float("-inf") if score.score.value is None else score.score.value


COLUMNS = ("of", "position", "layer", "score", "shuffled", "selectivity")


def cells(probes: Probes, score: Score) -> list[str]:
    found = [probes.subjects[score.subject].name, score.place, str(score.layer)]
    found += [figure_text(score.score), figure_text(score.control), figure_text(score.selectivity)]
    if len(probes.subjects) > 1:
        found.append("" if score.difference is None else figure_text(score.difference, signed=True))
    return found


def columns_of(probes: Probes) -> list[str]:
    return [*COLUMNS, *(["less the first"] if len(probes.subjects) > 1 else [])]


def table_html(probes: Probes, scores: Sequence[Score]) -> str:
    head = "".join(f"<th>{column}</th>" for column in columns_of(probes))
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells(probes, score)) + "</tr>" for score in scores
    )
    return f'<div class="numbers"><table><tr>{head}</tr>\n{rows}\n</table></div>'


def figure_text(figure: Figure, signed: bool = False) -> str:
    """`0.87 (0.81 to 0.91)`."""
    if figure.value is None:
        return "-"
    sign = "+" if signed else ""
    around = "" if figure.low is None or figure.high is None else f" ({figure.low:.2f} to {figure.high:.2f})"
    return f"{figure.value:{sign}.2f}{around}"
