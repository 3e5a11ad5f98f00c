"""Predictions that someone else made: the official files with their keys, JSON lines, or another evaluation's own.

A row that has no prediction is missing: wrong, and in the denominator. The authors' scripts skip it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from coat.manifests import InputError, Problem, Utterance
from coat.manifests.errors import ManifestError
from coat.trainer.evaluation.benchmark import Benchmark, read_records
from coat.trainer.evaluation.predictions import Prediction

# Official keys, then what people write; "answer" alone may be the truth, and is one only of coat's own lines.
KEYS = ("model_output", "model_prediction", "answer_prediction", "response", "prediction", "pred")


def read_others(
    path: str, benchmark: Benchmark, name: str, rows: Sequence[Utterance], key: str | None = None
) -> tuple[list[Prediction], str]:
    """One for each of the rows that has one, in their order, and the key that it was read from.

    InputError where the file holds none of these rows, or two of one.
    """
    records = list(read_records(path))
    problems = [Problem(r.file, r.row, r.problem) for r in records if r.problem]
    if problems:
        raise ManifestError(problems)
    values = [(r.row, r.values) for r in records if not r.note]
    used = key or key_of(path, (v for _, v in values), benchmark)
    wanted, found = {row.id for row in rows}, {}
    for number, record in values:
        identity = id_of(record, benchmark, wanted)
        if identity is None or (record.get("benchmark") not in (None, name) and "variant" in record):
            continue
        if identity in found:
            raise InputError(f"{path}:{number}: a second prediction of {identity}; expected one a row")
        found[identity] = record.get(used)
    if not found:
        raise InputError(
            f"{path}: no prediction of any of the {len(rows)} rows; expected their ids, such as {rows[0].id}"
        )
    made = []
    for row in rows:
        if row.id in found:
            answer = found[row.id]
            text = answer if isinstance(answer, str) else None if answer is None else str(answer)
            made.append(Prediction(benchmark=name, id=row.id, choices=row.choices, answer=text))
    return made, used


def key_of(path: str, records: Iterable[Mapping[str, Any]], benchmark: Benchmark) -> str:
    """The first of the known keys that any record has."""
    seen: dict[str, None] = {}
    own = False
    for record in records:
        seen.update(dict.fromkeys(record))
        own = own or ("variant" in record and "answer" in record)
    if own:
        return "answer"
    for key in (*benchmark.prediction_keys, *KEYS):
        if key in seen:
            return key
    has = ", ".join(list(seen)[:12]) or "no records"
    raise InputError(
        f"{path}: none of the keys {', '.join(dict.fromkeys((*benchmark.prediction_keys, *KEYS)))}; it has {has}; "
        "name yours with --prediction-key"
    )


def id_of(record: Mapping[str, Any], benchmark: Benchmark, wanted: set[str]) -> str | None:
    """Of the row that it is about: by its `id`, or as the importer would make it of the official record."""
    if record.get("id") is not None and str(record["id"]) in wanted:
        return str(record["id"])
    try:
        made = benchmark.to_row(record).get("id")
    except (ValueError, KeyError):
        return None
    return str(made) if made is not None and str(made) in wanted else None
