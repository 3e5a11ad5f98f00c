"""E, the folder of an evaluation, and what a session of it starts from.

E/config.toml         what the evaluation is (settings.py); written first
E/rows.jsonl          the rows that are asked, with their truth: all that scoring again needs
E/subject.json        who is asked
E/predictions.jsonl, variants.jsonl, timings.jsonl   see predictions.py
E/judgements.jsonl    of answers that no rule can score, where there is a judge
E/scores.jsonl        how each row was scored
E/cost.json           seconds and tokens of single questions
E/results.json        written LAST: see results.py
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coat.manifests import InputError, Utterance, storage
from coat.manifests.corpus.parsing import parse_row
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.evaluation.benchmark import Benchmark, digest_of_rows
from coat.trainer.evaluation.benchmarks.manifest import ManifestQuestions
from coat.trainer.evaluation.data import read_rows
from coat.trainer.evaluation.predictions import lines_of
from coat.trainer.evaluation.registry import find_benchmark
from coat.trainer.evaluation.results import Subject
from coat.trainer.evaluation.settings import BenchmarkSettings, EvaluationSettings, SubjectSettings, open_folder
from coat.trainer.evaluation.templates import AS_IT_IS, COAT, Template
from coat.trainer.run_folder import RunFolder

ROWS, SUBJECT = "rows.jsonl", "subject.json"


@dataclass(frozen=True)
class Asked:
    """One benchmark of an evaluation, with the rows that are asked of it."""

    settings: BenchmarkSettings
    benchmark: Benchmark
    rows: list[Utterance]
    template: Template
    max_new_tokens: int

    @property
    def label(self) -> str:
        return self.settings.label


def prepare_folder(folder: Path, settings: EvaluationSettings) -> EvaluationSettings:
    """Read the rows, check or write config.toml and rows.jsonl; the settings with digests of the rows.

    InputError: data that is none, or a folder that holds something else.
    """
    from coat.trainer.evaluation.asking.planning import subset

    read: list[list[Utterance]] = []
    with_digests = []
    for one in settings.benchmarks:
        benchmark = find_benchmark(one.name)
        benchmark.template_named(one.template)  # a mistake in it is found before anything is asked
        rows = subset(read_rows(benchmark, one.data, one.audio_root), settings.rows, settings.seed)
        read.append(rows)
        found = {"digest": digest_of_rows(rows), "template": template_of(one, settings.subject)}
        with_digests.append(one.model_copy(update=found))
    settings = settings.model_copy(update={"benchmarks": tuple(with_digests)})
    open_folder(folder, settings)
    labelled = zip((one.label for one in settings.benchmarks), read, strict=True)
    lines = "".join(row_lines(labelled)).encode()
    storage.write_bytes(str(folder / ROWS), lines)
    return settings


def template_of(one: BenchmarkSettings, subject: SubjectSettings) -> str | None:
    """As it was said. Where nothing was, a run is asked a manifest's questions as its training asked them."""
    if one.template is not None or subject.kind != "run" or one.name != ManifestQuestions.name:
        return one.template
    file = RunFolder(Path(subject.sources[0])).config_file
    if not file.exists():
        raise InputError(f"{subject.sources[0]}: no config.toml; expected what `coat train --out` wrote")
    return COAT.name if TrainConfig.read(str(file)).data.choices == "append" else AS_IT_IS.name


def row_lines(labelled: Iterable[tuple[str, Sequence[Utterance]]]) -> Iterable[str]:
    for label, rows in labelled:
        for row in rows:
            data = row.to_row() | {
                "audio_filepath": row.audio or None,
                "benchmark_": label,
                "named_": row.audio_filepath,
            }
            yield json.dumps(data, ensure_ascii=False) + "\n"


def read_asked(folder: Path, settings: EvaluationSettings) -> list[Asked]:
    """Of config.toml and rows.jsonl. InputError where they do not fit each other."""
    by_label: dict[str, list[Utterance]] = {one.label: [] for one in settings.benchmarks}
    for number, line in enumerate(lines_of(folder / ROWS), start=1):
        data = json.loads(line)
        label, named = data.pop("benchmark_", ""), data.pop("named_", "")
        if label not in by_label:
            raise InputError(f"{folder / ROWS}:{number}: a row of {label!r}, which config.toml does not have")
        by_label[label].append(with_name(data, named, number))
    found = []
    for one in settings.benchmarks:
        benchmark, rows = find_benchmark(one.name), by_label[one.label]
        if digest_of_rows(rows) != one.digest:
            raise InputError(f"{folder / ROWS}: not the rows that config.toml was written for; choose another --out")
        template = benchmark.template_named(one.template)
        limit = settings.max_new_tokens or benchmark.max_new_tokens
        found.append(Asked(one, benchmark, rows, template, limit))
    return found


def with_name(data: Mapping[str, Any], named: str, number: int) -> Utterance:
    from dataclasses import replace

    return replace(parse_row(dict(data), "", number), audio_filepath=named)


def check_subject(folder: Path, subject: Subject) -> None:
    """Note who is asked. InputError where it was someone else before: their answers would be mixed."""
    data = storage.to_json(subject.model_dump(mode="json"))
    if storage.put_if_absent(str(folder / SUBJECT), data):
        return
    before = read_subject(folder)
    changed = [
        name for name in ("source", "model_type", "step", "digest", "dtype")
        if getattr(before, name) != getattr(subject, name)
    ]  # fmt: skip
    if changed:
        name = changed[0]
        raise InputError(
            f"{folder}: its answers are of another {subject.kind} ({name} was {getattr(before, name)!r}, now "
            f"{getattr(subject, name)!r}); choose another --out"
        )


def read_subject(folder: Path) -> Subject:
    return Subject.model_validate(storage.read_json(str(folder / SUBJECT)))
