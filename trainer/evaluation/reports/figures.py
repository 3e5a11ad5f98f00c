"""Tables of the page: scores with their intervals as dots and lines, groups, cost, and what guards them."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from coat.trainer.evaluation.reports.comparing import points
from coat.trainer.evaluation.reports.finished import Finished, read_cost
from coat.trainer.evaluation.results import BenchmarkResults, Counts, Interval
from coat.trainer.evaluation.transcripts.error_rate import LOWER_IS_BETTER

WIDTH, HEIGHT = 220, 18  # of a plot; its axis is 0 to 1


def scores_html(label: str, evaluations: Sequence[Finished]) -> str:
    """All rows: both rules by every metric; then chance, trivial baselines and published figures, on the same axis."""
    having = [(one.name, one.results.benchmarks[label]) for one in evaluations if label in one.results.benchmarks]
    first = having[0][1]
    lines = [
        row_html(name, found, metric, rule)
        for metric in first.metrics
        for name, found in having
        for rule in ("official", "strict")
    ]
    if first.chance is not None:
        lines.append(line_html("chance", "accuracy", "", first.chance, None, "reference"))
    for name, scores in first.baselines.items():
        for rule in ("official", "strict"):
            value = getattr(scores, rule).get(first.metrics[0])
            if value is not None:
                lines.append(line_html(f"always: {name}", first.metrics[0], rule, value, None, "reference"))
    for figure in first.published:
        where = f"{figure.where or 'published'}{'' if figure.read else '; third-hand'}"
        lines.append(
            line_html(f"{figure.model} ({where})", figure.metric, "published", figure.value, None, "published")
        )
    head = "<tr><th></th><th>metric</th><th>rule</th><th>score</th><th>95 %</th><th></th></tr>"
    return f"{facts_html(having)}<table class=scores>{head}{''.join(lines)}</table>"


def facts_html(having: Sequence[tuple[str, BenchmarkResults]]) -> str:
    parts = []
    for name, found in having:
        counts = [
            f"{getattr(found, word):,} {word}"
            for word in ("missing", "failed", "empty", "unparsed", "unscored", "cut")
            if getattr(found, word)
        ]
        data = found.data_known or f"other rows than the official ones that we know (digest {found.data[:8]})"
        template = f"template {found.template.name}" if found.template else "prompts of others"
        parts.append(
            f"{name}: {found.version}, {found.rows:,} rows ({', '.join(counts) or 'all answered and read'}); {template}; {data}"
        )
        if found.leaks and (found.leaks.audio or found.leaks.question):
            parts.append(
                f"{name}: LEAK: audio of {len(found.leaks.audio):,} rows and questions of {len(found.leaks.question):,} lie in the training shards"
            )
        if found.orders:
            o = found.orders
            parts.append(
                f"{name}: choices in {o.orders} orders: {points(o.accuracy)} % right, {points(o.consistency)} % of rows keep their "
                f"choice, position bias {o.bias:.2f}"
            )
        if found.judge:
            parts.append(
                f"{name}: judged by {found.judge.model}, {found.judge.unparsed:,} of {found.judge.rows:,} judgements unread"
            )
    return "".join(
        f'<p class="{"alarm" if ": LEAK:" in part else "facts"}">{escape(part)}</p>' for part in dict.fromkeys(parts)
    )


def row_html(name: str, found: BenchmarkResults, metric: str, rule: str) -> str:
    value = getattr(found.scores, rule).get(metric)
    return "" if value is None else line_html(name, metric, rule, value, interval_of(found, rule, metric), rule)


def interval_of(found: Counts, rule: str, metric: str) -> Interval | None:
    return getattr(found.intervals, rule).get(metric)


def line_html(name: str, metric: str, rule: str, value: float, interval: Interval | None, style: str) -> str:
    low_high = f"{points(interval[0])} to {points(interval[1])}" if interval else ""
    better = " ↓" if metric in LOWER_IS_BETTER else ""
    return (
        f'<tr class="{style}"><td>{escape(name)}</td><td>{escape(metric)}{better}</td><td>{escape(rule)}</td>'
        f"<td class=number>{points(value)}</td><td class=number>{low_high}</td><td>{plot(value, interval)}</td></tr>"
    )


def plot(value: float, interval: Interval | None) -> str:
    """A dot at the score, a line for its interval. Scores above 1 (a word error rate) stand at the right edge."""
    x, middle = WIDTH * min(max(value, 0.0), 1.0), HEIGHT / 2
    line = ""
    if interval:
        low, high = (WIDTH * min(max(v, 0.0), 1.0) for v in interval)
        line = f'<line x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}"/>'
    axis = "".join(
        f'<line class=tick x1="{WIDTH * t}" y1="0" x2="{WIDTH * t}" y2="{HEIGHT}"/>' for t in (0, 0.25, 0.5, 0.75, 1)
    )
    return f'<svg class=plot width="{WIDTH}" height="{HEIGHT}" viewBox="-5 0 {WIDTH + 10} {HEIGHT}">{axis}{line}<circle cx="{x:.1f}" cy="{middle}" r="4"/></svg>'


def groups_html(label: str, evaluations: Sequence[Finished]) -> str:
    """By the headline metric and the strict rule."""
    having = [(one.name, one.results.benchmarks[label]) for one in evaluations if label in one.results.benchmarks]
    metric = having[0][1].metrics[0]
    tables = []
    for key in dict.fromkeys(key for _, found in having for key in found.groups):
        values = dict.fromkeys(value for _, found in having for value in found.groups.get(key, {}))
        lines = [
            group_line(value, name, found.groups[key][value], metric)
            for value in values
            for name, found in having
            if value in found.groups.get(key, {})
        ]
        head = "<tr><th></th><th></th><th>rows</th><th>official</th><th>strict</th><th>95 %</th><th></th></tr>"
        is_open = " open" if not tables and len(values) <= 12 else ""
        tables.append(
            f"<details{is_open}><summary>{escape(metric)} by {escape(key)} ({len(values)})</summary><table class=scores>{head}{''.join(lines)}</table></details>"
        )
    return "".join(tables)


def group_line(value: str, name: str, found: Counts, metric: str) -> str:
    official, strict = found.scores.official.get(metric), found.scores.strict.get(metric)
    if official is None or strict is None:
        return ""
    interval = interval_of(found, "strict", metric)
    low_high = f"{points(interval[0])} to {points(interval[1])}" if interval else ""
    return (
        f"<tr class=strict><td>{escape(value)}</td><td>{escape(name)}</td><td class=number>{found.rows:,}</td>"
        f"<td class=number>{points(official)}</td><td class=number>{points(strict)}</td><td class=number>{low_high}</td><td>{plot(strict, interval)}</td></tr>"
    )


def guard_html(one: Finished) -> str:
    heard = one.results.hearing
    if heard is None:
        return '<p class="facts">Not asked again with other audio: whether it hears is not known.</p>'
    return (
        f'<p class="{"facts" if heard.hears else "alarm"}">Asked again, {heard.rows:,} rows: {heard.changed_by_other_audio:,} answers changed with '
        f"another row's audio, {heard.changed_by_silence:,} with silence.</p>"
    )


def cost_html(evaluations: Sequence[Finished]) -> str:
    """What single questions cost, as cost.json has it: a line for who was asked, a column for each figure."""
    lines: list[tuple[str, Mapping[str, Any]]] = []
    for one in evaluations:
        for who, figures in (read_cost(one.folder) or {}).items():
            if isinstance(figures, dict):
                lines.append((f"{one.name}: {who}", figures))
    if not lines:
        return ""
    columns = list(
        dict.fromkeys(key for _, figures in lines for key, value in figures.items() if isinstance(value, int | float))
    )
    head = "".join(f"<th>{escape(key.replace('_', ' '))}</th>" for key in columns)
    body = "".join(
        f"<tr><td>{escape(name)}</td>{''.join(f'<td class=number>{number(figures.get(key))}</td>' for key in columns)}</tr>"
        for name, figures in lines
    )
    return f"<section><h2>Cost</h2><table class=scores><tr><th></th>{head}</tr>{body}</table></section>"


def number(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, int | float) else ""
