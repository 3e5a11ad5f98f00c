"""Results as tables of Markdown, for papers and model cards."""

from collections.abc import Sequence

from coat.trainer.evaluation.reports.comparing import Comparison, points, sentence
from coat.trainer.evaluation.reports.figures import COSTS, cost_rows, group_keys, interval_of
from coat.trainer.evaluation.reports.finished import Finished
from coat.trainer.evaluation.results import Counts
from coat.trainer.evaluation.transcripts.error_rate import LOWER_IS_BETTER


def report_markdown(evaluations: Sequence[Finished], compared: Sequence[Comparison] = ()) -> str:
    """The headings, a table a benchmark with chance, baselines and published figures, groups, and comparisons."""
    parts = [f"- {one.name}: {one.results.heading}" for one in evaluations]
    for label in dict.fromkeys(label for one in evaluations for label in one.results.benchmarks):
        parts += ["", f"## {label}", "", scores_table(label, evaluations)]
        for key in group_keys(label, evaluations):
            parts += ["", groups_table(label, key, evaluations)]
        parts += [f"\n{sentence(c, d)}." for c in compared if c.benchmark == label for d in c.overall]
    if costs := cost_rows(evaluations):
        parts += ["", "## Cost", "", table(["", *COSTS.values()], costs)]
    parts += [
        "",
        "In %, with 95 % bootstrap intervals. Missing, empty and unparsed answers are wrong. ↓: lower is better.",
    ]
    return "\n".join(parts) + "\n"


def scores_table(label: str, evaluations: Sequence[Finished]) -> str:
    having = [(one.name, one.results.benchmarks[label]) for one in evaluations if label in one.results.benchmarks]
    first = having[0][1]
    metrics = [m for m in first.metrics if m in first.scores.official]
    columns = [
        "",
        *(f"{m}{' ↓' if m in LOWER_IS_BETTER else ''} ({rule})" for m in metrics for rule in ("official", "strict")),
    ]
    columns += ["rows", "missing", "unparsed"]
    lines = [
        [
            name,
            *(cell(found, rule, m) for m in metrics for rule in ("official", "strict")),
            f"{found.rows:,}",
            str(found.missing),
            str(found.unparsed),
        ]
        for name, found in having
    ]
    for name, scores in first.baselines.items():
        values = [getattr(scores, rule).get(m) for m in metrics for rule in ("official", "strict")]
        lines.append([f"*always: {name}*", *("-" if v is None else points(v) for v in values), "", "", ""])
    if first.chance is not None and "accuracy" in metrics:
        lines.append(
            [
                "*chance*",
                *(points(first.chance) if m == "accuracy" else "-" for m in metrics for _ in range(2)),
                "",
                "",
                "",
            ]
        )
    for figure in first.published:
        where = f"*{figure.model}, published ({figure.where or first.version}{'' if figure.read else '; third-hand'})*"
        values = [
            points(figure.value) if m == figure.metric and rule == "official" else "-"
            for m in metrics
            for rule in ("official", "strict")
        ]
        lines.append([where, *values, "", "", ""])
    return table(columns, lines)


def groups_table(label: str, key: str, evaluations: Sequence[Finished]) -> str:
    """By the headline metric and the strict rule: a row a value, a column an evaluation."""
    having = [(one.name, one.results.benchmarks[label]) for one in evaluations if label in one.results.benchmarks]
    metric = having[0][1].metrics[0]
    values = dict.fromkeys(value for _, found in having for value in found.groups.get(key, {}))
    lines = []
    for value in values:
        found = [one.groups.get(key, {}).get(value) for _, one in having]
        rows = next(part.rows for part in found if part)
        lines.append([value, f"{rows:,}", *(cell(part, "strict", metric) if part else "-" for part in found)])
    return table([key, "rows", *(f"{name}, {metric} (strict)" for name, _ in having)], lines)


def cell(found: Counts, rule: str, metric: str) -> str:
    value = getattr(found.scores, rule).get(metric)
    if value is None:
        return "-"
    interval = interval_of(found, rule, metric)
    return f"{points(value)} [{points(interval[0])}, {points(interval[1])}]" if interval else points(value)


def table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    made = [columns, ["---"] * len(columns), *lines]
    return "\n".join("| " + " | ".join(escape(cell) for cell in line) + " |" for line in made)


def escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
