"""What rows say together: shares and means with 95 % intervals over clips, by group, and against another run.

Every figure is a ratio of two sums over rows, so that a draw of the bootstrap is a matrix product. Rows that share a
sound are drawn together. N rows, C columns (two a figure), R draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coat.analysis.interventions.kinds import UNTOUCHED
from coat.manifests import InputError
from coat.trainer.evaluation.statistics.bootstrap import Clusters, spread, wilson

SHARES = ("accuracy", "lost", "changed", "donor", "exact")
FIGURES = (*SHARES, "kl", "log_prob", "shift")
USUAL_KEYS = ("group", "task", "corpus")  # by the first of them that rows have
Record = Mapping[str, Any]
Values = NDArray[np.float64]


@dataclass(frozen=True)
class Figure:
    """`rows`: that it is of. None: there are none, or no draw has any."""

    value: float | None
    interval: tuple[float, float] | None
    rows: int


@dataclass(frozen=True)
class Line:
    """One intervention in one group ("" is all rows). `against`: this run's figure less the other's, on shared rows."""

    group: str
    intervention: str
    rows: int
    figures: Mapping[str, Figure]
    against: Mapping[str, Figure] | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def sums_of(record: Record, intervention: str) -> list[float]:
    """`[C]`: over and under of each figure; nothing of a row that was not measured so.

    accuracy   right answers
    lost       right answers untouched, less those now
    changed    other answers than untouched
    donor      answers that are right of the donor's sound and wrong of the row's
    exact      greedy decoding says the true response and ends it
    kl         nats a token of the true response
    log_prob   of the whole true response
    shift      how far the state that begins the answer moves, as a share of how far it is from the donor's
    """
    result, untouched = record.get(intervention), record[UNTOUCHED]
    if result is None:
        return [0.0] * (2 * len(FIGURES))
    donors, apart = result["donors"], record["apart"]
    pairs = {
        "accuracy": (result["right"], 1.0),
        "lost": (untouched["right"] - result["right"], 1.0),
        "changed": (result["changed"], 1.0),
        "donor": (0.0, 0.0) if donors is None else (donors, 1.0),
        "exact": (result["exact"], 1.0),
        "kl": (result["kl"], 1.0),
        "log_prob": (result["log_prob"], 1.0),
        "shift": (0.0, 0.0) if apart is None else (result["moved"], apart),
    }
    return [float(value) for name in FIGURES for value in pairs[name]]


def key_of(records: Sequence[Record], by: str | None) -> str | None:
    """The key that rows are grouped by: as asked, else the first usual one that any has. InputError: none has it."""
    known = {key: None for record in records for key in record["extra"]}
    if by is not None and by not in known:
        raise InputError(f"--by {by}: no row has that key; there are {', '.join(sorted(known)) or 'none'}")
    return by or next((key for key in USUAL_KEYS if key in known), None)


def lines_of(
    records: Sequence[Record], interventions: Sequence[str], by: str | None, others: Sequence[Record] | None = None
) -> list[Line]:
    """All rows first, then each group. `others`: of another run; compared on the rows (by number and id) of both."""
    groups, clusters = groups_of(records, by), Clusters.of([record["clip"] for record in records])
    other_of = {(one["number"], one["id"]): one for one in others or ()}
    paired = [other_of.get((record["number"], record["id"])) for record in records]
    asked = [(group, name) for group in groups for name in (UNTOUCHED, *interventions)]
    own = [matrix(records, groups[group], name) for group, name in asked]
    found = drawn(own, clusters)
    if others is None:
        return [Line(*line, rows_of(v), figures(v, d, clusters)) for line, v, d in zip(asked, own, found, strict=True)]
    both = [
        [i for i in groups[group] if records[i].get(name) and (other := paired[i]) and other.get(name)]
        for group, name in asked
    ]
    alone = [matrix(records, rows, name) for rows, (_, name) in zip(both, asked, strict=True)]
    theirs = [matrix(paired, rows, name) for rows, (_, name) in zip(both, asked, strict=True)]
    compared = zip(alone, drawn(alone, clusters), theirs, drawn(theirs, clusters), strict=True)
    return [
        Line(*line, rows_of(v), figures(v, d, clusters), differences(*sides))
        for line, v, d, sides in zip(asked, own, found, compared, strict=True)
    ]


def groups_of(records: Sequence[Record], by: str | None) -> dict[str, list[int]]:
    """Rows of each group, by name; all of them first, under ""."""
    key, groups = key_of(records, by), {}
    for i, record in enumerate(records):
        if key is not None and (value := record["extra"].get(key)) not in (None, ""):
            groups.setdefault(value, []).append(i)
    return {"": list(range(len(records))), **dict(sorted(groups.items()))}


def matrix(records: Sequence[Record | None], rows: Sequence[int], intervention: str) -> Values:
    """`[N, C]`: sums of these rows, nothing of all others."""
    values_NC = np.zeros((len(records), 2 * len(FIGURES)))
    for i in rows:
        if (record := records[i]) is not None:
            values_NC[i] = sums_of(record, intervention)
    return values_NC


def drawn(values: Sequence[Values], clusters: Clusters) -> list[Values]:
    """`[R, C]` of each: the same draws for all."""
    width = 2 * len(FIGURES)
    totals = clusters.draw(np.concatenate([clusters.sums(one) for one in values], axis=1))
    return [totals[:, start : start + width] for start in range(0, totals.shape[1], width)]


def figures(values_NC: Values, drawn_RC: Values, clusters: Clusters) -> dict[str, Figure]:
    total_C, heard = values_NC.sum(0), len(np.unique(clusters.of_row[values_NC.any(1)]))
    found = {}
    for i, name in enumerate(FIGURES):
        value, interval = ratio(total_C, i), spread(ratio(drawn_RC, i))
        if name in SHARES and name != "lost" and value in (0.0, 1.0):
            interval = wilson(float(value), heard)
        found[name] = figure(value, interval, rows_of(values_NC, i))
    return found


def differences(values_NC: Values, drawn_RC: Values, other_NC: Values, other_RC: Values) -> dict[str, Figure]:
    totals, others = values_NC.sum(0), other_NC.sum(0)
    return {
        name: figure(
            ratio(totals, i) - ratio(others, i), spread(ratio(drawn_RC, i) - ratio(other_RC, i)), rows_of(values_NC, i)
        )
        for i, name in enumerate(FIGURES)
    }


def ratio(totals: Values, i: int) -> Any:
    """Of column pair `i` of totals, `[..., C]`; NaN where nothing is below the line."""
    over, under = totals[..., 2 * i], totals[..., 2 * i + 1]
    return np.divide(over, under, out=np.full_like(over, np.nan), where=under != 0)


def figure(value: Any, interval: tuple[float, float] | None, rows: int) -> Figure:
    return Figure(None, None, 0) if not np.isfinite(value) else Figure(float(value), interval, rows)


def rows_of(values_NC: Values, i: int = 0) -> int:
    """That figure `i` is of."""
    return int((values_NC[:, 2 * i + 1] != 0).sum())
