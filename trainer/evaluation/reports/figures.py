"""Tables of the page: scores with their intervals as dots and lines, groups, cost, and what guards them."""

from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import Any

from coat.trainer.evaluation.reports.comparing import points
from coat.trainer.evaluation.reports.finished import Finished, read_cost
from coat.trainer.evaluation.results import BenchmarkResults, Counts, Interval
from coat.trainer.evaluation.transcripts.error_rate import LOWER_IS_BETTER

WIDTH, HEIGHT = 220, 18  # of a plot in pixels; its axis is 0 to 1
RULES = ("official", "strict")
PLOT = "plot"  # heading of a column of plots, which is their axis
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
DOUBTS = ("missing", "failed", "empty", "unparsed", "unscored", "cut")
Having = Sequence[tuple[str, BenchmarkResults]]  # names of evaluations, with what they found of one benchmark


def scores_html(label: str, evaluations: Sequence[Finished]) -> str:
    """All rows: both rules by every metric; then chance, trivial baselines and published figures, on the same axis."""
    having = with_benchmark(label, evaluations)
    first = having[0][1]
    lines = [
        line_html(name, metric, rule, value, interval_of(found, rule, metric), rule)
        for metric in first.metrics
        for name, found in having
        for rule in RULES
        if (value := getattr(found.scores, rule).get(metric)) is not None
    ]
    if first.chance is not None:
        lines.append(line_html("chance", "accuracy", "", first.chance, None, "reference"))
    for name, scores in first.baselines.items():
        by_rule = {rule: v for rule in RULES if (v := getattr(scores, rule).get(first.metrics[0])) is not None}
        if len(set(by_rule.values())) == 1:
            by_rule = {"either": next(iter(by_rule.values()))}
        for rule, value in by_rule.items():
            lines.append(line_html(f"always: {name}", first.metrics[0], rule, value, None, "reference"))
    for figure in first.published:
        where = f"{figure.where or 'published'}{'' if figure.read else '; third-hand'}"
        name = f"{figure.model} ({where})"
        lines.append(line_html(name, figure.metric, "published", figure.value, None, "published"))
    facts = "".join(
        f'<p class="{"alarm" if alarming else "facts"}">{escape(text)}</p>' for alarming, text in facts_of(having)
    )
    return facts + table_html(["", "metric", "rule", "score, %", "95 % interval", PLOT], lines, numbers=(3, 4))


def with_benchmark(label: str, evaluations: Sequence[Finished]) -> Having:
    return [(one.name, one.results.benchmarks[label]) for one in evaluations if label in one.results.benchmarks]


def facts_of(having: Having) -> list[tuple[bool, str]]:
    """Sentences about who was asked what, and whether they alarm."""
    found: list[tuple[bool, str]] = []
    for name, one in having:
        counts = ", ".join(f"{getattr(one, word):,} {word}" for word in DOUBTS if getattr(one, word))
        data = one.data_known or f"data of digest {one.data[:8]}"
        template = f"template {one.template.name}" if one.template else "prompts of others"
        rows = f"{one.rows:,} rows ({counts or 'all answered and read'})"
        found.append((False, f"{name}: {one.version}, {rows}; {template}; {data}"))
        if (leaks := one.leaks) and (leaks.audio or leaks.question):
            both = f"the audio of {len(leaks.audio):,} rows, and {len(leaks.question):,} questions"
            found.append((True, f"{name}: leaks: {both}, lie in the training shards"))
        if o := one.orders:
            kept = f"{points(o.accuracy)} % right, {points(o.consistency)} % of rows keep their choice"
            found.append((False, f"{name}: choices in {o.orders} orders: {kept}, position bias {o.bias:.2f}"))
        if judge := one.judge:
            unread = f"{judge.unparsed:,} of {judge.rows:,} judgements unread"
            found.append((False, f"{name}: judged by {judge.model}, {unread}"))
    return found


def interval_of(found: Counts, rule: str, metric: str) -> Interval | None:
    return getattr(found.intervals, rule).get(metric)


def line_html(name: str, metric: str, rule: str, value: float, interval: Interval | None, style: str) -> str:
    better = " ↓" if metric in LOWER_IS_BETTER else ""
    cells = [name, f"{metric}{better}", rule]
    return row_html(style, cells, [points(value), range_text(interval)], plot(value, interval))


def range_text(interval: Interval | None) -> str:
    return f"{points(interval[0])} to {points(interval[1])}" if interval else ""


def row_html(style: str, cells: Sequence[str], numbers: Sequence[str], last: str = "") -> str:
    """`last` is markup; all else is text."""
    texts = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    figures = "".join(f'<td class="number">{escape(cell)}</td>' for cell in numbers)
    return f'<tr class="{style}">{texts}{figures}{f"<td>{last}</td>" if last else ""}</tr>'


def table_html(columns: Sequence[str], lines: Sequence[str], numbers: Collection[int]) -> str:
    """`numbers`: columns of them. On a narrow screen it scrolls by itself, sideways."""
    head = "".join(
        f"<th{' class=number' if i in numbers else ''}>{axis() if column == PLOT else escape(column)}</th>"
        for i, column in enumerate(columns)
    )
    return f'<div class="wide"><table class="scores"><tr>{head}</tr>{"".join(lines)}</table></div>'


def plot(value: float, interval: Interval | None) -> str:
    """A dot at the score, a line for its interval. Scores above 1 (a word error rate) stand at the right edge."""
    middle = HEIGHT / 2
    parts = [f'<line class="tick" x1="{x_of(t)}" y1="0" x2="{x_of(t)}" y2="{HEIGHT}"/>' for t in TICKS]
    if interval:
        parts.append(f'<line x1="{x_of(interval[0])}" y1="{middle}" x2="{x_of(interval[1])}" y2="{middle}"/>')
    parts.append(f'<circle cx="{x_of(value)}" cy="{middle}" r="4"/>')
    return svg("".join(parts))


def axis() -> str:
    return svg("".join(f'<text x="{x_of(t)}" y="14" text-anchor="middle">{100 * t:.0f}</text>' for t in TICKS))


def x_of(share: float) -> str:
    return f"{WIDTH * min(max(share, 0.0), 1.0):.1f}"


def svg(inner: str) -> str:
    box = f'width="{WIDTH}" height="{HEIGHT}" viewBox="-5 0 {WIDTH + 10} {HEIGHT}"'
    return f'<svg class="plot" {box}>{inner}</svg>'


def groups_html(label: str, evaluations: Sequence[Finished]) -> str:
    """By the headline metric; the plots by the strict rule."""
    having = with_benchmark(label, evaluations)
    metric = having[0][1].metrics[0]
    tables = []
    for key in group_keys(label, evaluations):
        values = dict.fromkeys(value for _, found in having for value in found.groups.get(key, {}))
        lines = [
            group_line(value, name, found.groups[key][value], metric)
            for value in values
            for name, found in having
            if value in found.groups.get(key, {})
        ]
        made = table_html(
            [key, "", "rows", "chance, %", "official, %", "strict, %", "95 % interval", PLOT],
            lines,
            numbers=range(2, 7),
        )
        is_open = " open" if not tables and len(values) <= 12 else ""
        title = f"{metric} by {key} ({len(values)})"
        tables.append(f"<details{is_open}><summary>{escape(title)}</summary>{made}</details>")
    return "".join(tables)


def group_keys(label: str, evaluations: Sequence[Finished]) -> list[str]:
    """Keys that any of them has, in the benchmark's own order: results.json has them by name."""
    having = [one for one in evaluations if label in one.results.benchmarks]
    order = having[0].benchmark_of[label].groups
    found = dict.fromkeys(key for one in having for key in one.results.benchmarks[label].groups)
    return sorted(found, key=lambda key: (order.index(key) if key in order else len(order), key))


def group_line(value: str, name: str, found: Counts, metric: str) -> str:
    official, strict = found.scores.official.get(metric), found.scores.strict.get(metric)
    if official is None or strict is None:
        return ""
    interval = interval_of(found, "strict", metric)
    chance = "" if found.chance is None else points(found.chance)
    numbers = [f"{found.rows:,}", chance, points(official), points(strict), range_text(interval)]
    return row_html("strict", [value, name], numbers, plot(strict, interval))


def guard_html(one: Finished) -> str:
    """The heading says what the guard found."""
    if one.results.hearing is not None:
        return ""
    return '<p class="facts">Not asked again with other audio: whether it hears is not known.</p>'


COSTS = {
    "rows": "rows",
    "first_token.p50": "first token, s: p50",
    "first_token.p95": "first token, s: p95",
    "total.p50": "answer, s: p50",
    "total.p95": "answer, s: p95",
    "tokens_per_s": "tokens/s",
    "prompt_tokens": "prompt tokens",
    "block_tokens": "block tokens",
    "answer_tokens": "answer tokens",
}


def cost_rows(evaluations: Sequence[Finished]) -> list[list[str]]:
    """What single questions cost, of cost.json: a line for each that was asked."""
    return [
        [f"{one.name}: {mode} ({cost.get('device', '')})", *(cost_cell(figures, key) for key in COSTS)]
        for one in evaluations
        if (cost := read_cost(one.folder))
        for mode, figures in cost.get("modes", {}).items()
    ]


def cost_cell(figures: Mapping[str, Any], key: str) -> str:
    """Empty where it was not measured."""
    value: Any = figures
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return f"{value:,.4g}" if isinstance(value, int | float) else ""


def cost_html(evaluations: Sequence[Finished]) -> str:
    rows = [row_html("", line[:1], line[1:]) for line in cost_rows(evaluations)]
    if not rows:
        return ""
    what = (
        '<p class="facts">Some rows, asked one by one with a clock. A block is read in the one prefill. Empty: not '
        "known (a server that does not stream does not say when its first token comes).</p>"
    )
    table = table_html(["", *COSTS.values()], rows, numbers=range(1, len(COSTS) + 1))
    return f"<section><h2>Cost</h2>{what}{table}</section>"
