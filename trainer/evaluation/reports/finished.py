"""A finished evaluation, as its folder has it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from coat.manifests import InputError, Utterance
from coat.manifests.corpus.parsing import parse_row
from coat.trainer.evaluation.benchmark import Benchmark, Source
from coat.trainer.evaluation.checks.judge import read_judgements
from coat.trainer.evaluation.out_folder import ROWS
from coat.trainer.evaluation.predictions import Prediction, RowScore, lines_of, read_predictions, read_scores
from coat.trainer.evaluation.registry import benchmark_names, find_benchmark
from coat.trainer.evaluation.results import BenchmarkResults, Results
from coat.trainer.evaluation.settings import EvaluationSettings


@dataclass(frozen=True)
class Finished:
    """`name`: the folder's, told from those of others."""

    name: str
    folder: Path
    results: Results

    @cached_property
    def scores(self) -> dict[str, list[RowScore]]:
        """By the label of the benchmark."""
        found: dict[str, list[RowScore]] = {label: [] for label in self.results.benchmarks}
        for score in read_scores(self.folder):
            found.setdefault(score.benchmark, []).append(score)
        return found

    @cached_property
    def predictions(self) -> dict[tuple[str, str], Prediction]:
        """Answers to rows as they are, by label and id."""
        return {(p.benchmark, p.id): p for p in read_predictions(self.folder).values() if not p.variant}

    @cached_property
    def judgements(self) -> dict[tuple[str, str], str]:
        """What a judge said of an answer, by label and id."""
        return {key: one.said or one.error or "" for key, one in read_judgements(self.folder).items()}

    @cached_property
    def rows(self) -> dict[str, list[Utterance]]:
        """What was asked, by label. InputError names a line that is none."""
        path, found = self.folder / ROWS, {}
        for number, line in enumerate(lines_of(path), start=1):
            try:
                data = json.loads(line)
                label, _ = data.pop("benchmark_"), data.pop("named_", "")
                row = parse_row(data, "", number)
            except (ValueError, KeyError, TypeError) as e:
                raise InputError(f"{path}:{number}: not a row of an evaluation ({e})") from e
            found.setdefault(label, []).append(row)
        return found

    @cached_property
    def benchmark_of(self) -> Mapping[str, Benchmark]:
        """By label. A benchmark of a file or module is not imported: of it there are ratios of sums alone."""
        names = {one.label: one.name for one in EvaluationSettings.read(self.folder).benchmarks}
        return {label: known_benchmark(names.get(label, ""), found) for label, found in self.results.benchmarks.items()}


def known_benchmark(name: str, results: BenchmarkResults) -> Benchmark:
    return find_benchmark(name) if name in benchmark_names() else Unknown(name, results)


class Unknown(Benchmark):
    """One whose code is not run here."""

    def __init__(self, name: str, results: BenchmarkResults) -> None:
        self.name, self.version, self.licence = name, results.version, results.licence  # type: ignore[misc]
        self.source, self.metrics = Source(results.source, results.revision), tuple(results.metrics)  # type: ignore[misc]


def read_finished(folders: Sequence[str]) -> list[Finished]:
    """InputError where one is no finished evaluation, or is given twice."""
    paths = [Path(folder) for folder in folders]
    if not paths:
        return []
    if len({p.resolve() for p in paths}) < len(paths):
        raise InputError("one evaluation is given twice; expected the folders of different ones")
    return [Finished(name, path, Results.read(path)) for name, path in zip(short_names(paths), paths, strict=True)]


def short_names(paths: Sequence[Path]) -> list[str]:
    """The last part of each, and as many before it as tell them apart."""
    resolved = [p.resolve().parts for p in paths]
    for n in range(1, max(map(len, resolved)) + 1):
        names = ["/".join(parts[-n:]) for parts in resolved]
        if len(set(names)) == len(names):
            return names
    return ["/".join(parts) for parts in resolved]


def read_cost(folder: Path) -> dict[str, Any] | None:
    """cost.json; None where nothing was clocked."""
    path = folder / "cost.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        raise InputError(f"{path}: not JSON ({e}); run `coat evaluate` again") from e
    return found if isinstance(found, dict) else None
