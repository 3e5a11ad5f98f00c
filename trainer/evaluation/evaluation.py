"""An evaluation from its settings to results.json, on one rank or several.

prepare  on the main rank: rows are read, the folder is opened
ask      on all ranks: each its batches; on the main one then what single questions cost
finish   on the main rank: files are joined, rows scored, results written
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coat.manifests import RunError
from coat.trainer.evaluation.asking.ask import Ask, Asker
from coat.trainer.evaluation.asking.loop import AnswerFiles, ask_all, replace_lines
from coat.trainer.evaluation.asking.others import read_others
from coat.trainer.evaluation.asking.planning import batches, guard_asks, order_asks, plain_asks, subset
from coat.trainer.evaluation.baselines import baselines
from coat.trainer.evaluation.benchmark import score
from coat.trainer.evaluation.checks.cost import COST, Timer, machine, measure
from coat.trainer.evaluation.checks.hearing import hearing, sentence
from coat.trainer.evaluation.checks.leaks import FILE as LEAKS
from coat.trainer.evaluation.checks.leaks import TrainingData, find_leaks
from coat.trainer.evaluation.checks.leaks import sentence as leaks_sentence
from coat.trainer.evaluation.checks.orders import order_results
from coat.trainer.evaluation.data import seconds_of
from coat.trainer.evaluation.out_folder import Asked, check_subject, prepare_folder, read_asked, read_subject
from coat.trainer.evaluation.predictions import PREDICTIONS, SCORES, VARIANTS, Key, Prediction, read_predictions
from coat.trainer.evaluation.results import BenchmarkResults, Leaks, PromptUsed, Results, Subject
from coat.trainer.evaluation.scoring import (
    ScoredRow,
    by_group,
    counts,
    headline,
    published_of,
    row_score,
    score_rows,
    used_template,
)
from coat.trainer.evaluation.settings import EvaluationSettings
from coat.trainer.evaluation.statistics.intervals import with_intervals
from coat.trainer.evaluation.templates import COT

IN_TEXT = "student, thinking in text"
MakeAsker = Callable[[EvaluationSettings], Asker]


@dataclass(frozen=True)
class Ranks:
    """Of this process among those that share an evaluation; `wait` returns when all have called it."""

    rank: int = 0
    count: int = 1
    wait: Callable[[], None] = lambda: None

    @property
    def is_main(self) -> bool:
        return self.rank == 0


@dataclass(frozen=True)
class Progress:
    """What an evaluation tells on the way. `asks(n, total)`: n more are answered."""

    asks: Callable[[int, int], None] = lambda n, total: None
    log: Callable[[str], None] = lambda line: None


def evaluate(
    settings: EvaluationSettings,
    out: Path,
    make_asker: MakeAsker,
    *,
    ranks: Ranks = Ranks(),
    workers: int = 2,
    progress: Progress = Progress(),
) -> Results | None:
    """Ask and score. The results, on the main rank. InputError, RunError: one line."""
    if ranks.is_main:
        settings = prepare_folder(out, settings)
        look_for_leaks(settings, read_asked(out, settings), out, progress)
    ranks.wait()
    settings = EvaluationSettings.read(out)
    asked = read_asked(out, settings)
    ask(settings, asked, out, make_asker, ranks=ranks, workers=workers, progress=progress)
    ranks.wait()
    return finish(settings, asked, out) if ranks.is_main else None


def ask(
    settings: EvaluationSettings,
    asked: list[Asked],
    out: Path,
    make_asker: MakeAsker,
    *,
    ranks: Ranks,
    workers: int,
    progress: Progress,
) -> None:
    """This rank's batches, as far as they are not answered."""
    if settings.subject.kind == "predictions":
        if ranks.is_main:
            take_over(settings, asked, out, progress)
        return
    files = AnswerFiles(out, ranks.rank)
    asks = all_asks(settings, asked)
    answered = files.answered()
    to_time = timed_asks(settings, asked) if ranks.is_main and not (out / COST).exists() else {}
    if all(one.key in answered for one in asks) and not to_time:
        progress.asks(len(asks), len(asks))
        return
    asker = make_asker(settings)
    check_subject(out, asker.subject)
    seconds = seconds_of([one.row for one in asks])
    lengths = [asker.positions(one, s) for one, s in zip(asks, seconds, strict=True)]
    groups = batches(lengths, [one.max_new_tokens for one in asks], settings.batch_size, settings.batch_tokens)
    by_label = {one.label: one for one in asked}

    def parse(one: Ask, answer: str) -> str | None:
        return parsed_choice(by_label[one.benchmark], replace(one.row, choices=one.choices), answer)

    share = sum(len(group) for n, group in enumerate(groups) if n % ranks.count == ranks.rank)
    ask_all(
        asks, groups, asker, files, parse, ranks=ranks.count, workers=workers, answered=answered,
        on_asks=lambda n: progress.asks(n, share),
    )  # fmt: skip
    if to_time and (cost := measure(to_time, timers(asker), *machine())):
        with disk(out):
            storage.write_bytes(str(out / COST), storage.to_json(cost.model_dump(mode="json")))


def look_for_leaks(settings: EvaluationSettings, asked: list[Asked], out: Path, progress: Progress) -> None:
    """E/leaks.json, by benchmark; none where no shards are named."""
    known = read_leaks(out)
    if not settings.train_shards or (
        all(list(settings.train_shards) == leaks.shards for leaks in known.values()) and known
    ):
        return
    progress.log(f"looking for the rows in {', '.join(settings.train_shards)}")
    training = TrainingData(settings.train_shards)
    found = {one.label: find_leaks(one.rows, training) for one in asked}
    for label, leaks in found.items():
        progress.log(leaks_sentence(label, leaks))
    with disk(out):
        data = storage.to_json({label: leaks.model_dump(mode="json") for label, leaks in found.items()})
        storage.write_bytes(str(out / LEAKS), data)


def read_leaks(out: Path) -> dict[str, Leaks]:
    """By benchmark, of an evaluation that has looked for them."""
    if not (out / LEAKS).exists():
        return {}
    return {label: Leaks.model_validate(leaks) for label, leaks in storage.read_json(str(out / LEAKS)).items()}


def all_asks(settings: EvaluationSettings, asked: list[Asked]) -> list[Ask]:
    """Rows as they are; then the guard's, of all benchmarks together, and other orders of choices."""
    transcribe, asks, orders = settings.transcribe_prompt, [], []
    for one in asked:
        plain = plain_asks(one.label, one.rows, one.template, one.max_new_tokens, transcribe)
        asks += plain
        orders += order_asks(plain, settings.orders, settings.seed, one.template, transcribe)
    return [*asks, *guard_asks(asks, settings.guard, settings.seed), *orders]


def timed_asks(settings: EvaluationSettings, asked: list[Asked]) -> dict[str, list[Ask]]:
    """By mode: some rows of the first benchmark, drawn by seed."""
    if not settings.cost:
        return {}
    one, kind = asked[0], settings.subject.kind
    rows = subset(one.rows, settings.cost, settings.seed + 1)
    plain = plain_asks(one.label, rows, one.template, one.max_new_tokens, settings.transcribe_prompt)
    modes = {kind: plain} | ({"student": plain} if kind == "run" else {})
    if settings.cot is not None and kind != "server":
        modes[IN_TEXT] = plain_asks(one.label, rows, COT, settings.cot, settings.transcribe_prompt)
    return modes


def timers(asker: Any) -> Callable[[str], Any]:
    """By mode, a context that gives who answers in it."""

    @contextmanager
    def timer(mode: str) -> Iterator[Timer]:
        if mode == asker.subject.kind:
            yield asker.timed
        else:
            with asker.base() as base:
                yield base.timed

    return timer


def parsed_choice(asked: Asked, row: Any, answer: str) -> str | None:
    """By the strict rule."""
    if not answer.strip() or asked.benchmark.judge_request(row, answer) is not None:
        return None
    verdicts = score(asked.benchmark, row, answer)
    return verdicts[1].choice if verdicts else None


def take_over(settings: EvaluationSettings, asked: list[Asked], out: Path, progress: Progress) -> None:
    """Predictions of others into predictions.jsonl."""
    predictions, sources = [], settings.subject.sources
    keys = []
    for one, source in zip(asked, sources, strict=True):
        found, key = read_others(source, one.benchmark, one.label, one.rows, settings.subject.prediction_key)
        predictions += with_choices(one, found)
        keys.append(key)
        progress.log(f"{source}: {len(found):,} predictions of {len(one.rows):,} rows, read from {key}")
    check_subject(out, Subject(kind="predictions", source=", ".join(sources), generation={"keys": keys}))
    replace_lines(out / PREDICTIONS, [p.to_line() for p in predictions])


def with_choices(asked: Asked, predictions: list[Prediction]) -> list[Prediction]:
    """Parsed anew."""
    rows = {row.id: row for row in asked.rows}
    return [
        replace(p, choice=None if p.answer is None else parsed_choice(asked, rows[p.id], p.answer))
        for p in predictions
    ]  # fmt: skip


def finish(settings: EvaluationSettings, asked: list[Asked], out: Path) -> Results:
    """Join what all ranks wrote, score it, and write scores.jsonl and results.json."""
    if settings.subject.kind != "predictions":
        AnswerFiles(out).join(all_asks(settings, asked))
    with disk(out):
        return score_folder(settings, asked, out)


def rescore(out: Path) -> Results:
    """Score again what was answered, by the rules as they are now. InputError: nothing was answered there."""
    settings = EvaluationSettings.read(out)
    asked = read_asked(out, settings)
    answered = AnswerFiles(out).answered()
    if not answered:
        raise RunError(f"{out}: nothing is answered there yet; run its `coat evaluate` again")
    by_label = {one.label: one for one in asked}
    rows = {(one.label, row.id): row for one in asked for row in one.rows}
    for name in (PREDICTIONS, VARIANTS):
        lines = []
        for p in read_predictions(out, name).values():
            row = replace(rows[p.benchmark, p.id], choices=p.choices or rows[p.benchmark, p.id].choices)
            choice = None if p.answer is None else parsed_choice(by_label[p.benchmark], row, p.answer)
            lines.append(replace(p, choice=choice).to_line())
        with disk(out):
            replace_lines(out / name, lines)
    with disk(out):
        return score_folder(settings, asked, out)


@contextmanager
def disk(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise RunError(f"{out}: cannot be written ({e.strerror or e}); make room, and run the same command") from e


def score_folder(settings: EvaluationSettings, asked: list[Asked], out: Path) -> Results:
    answered = {**read_predictions(out, PREDICTIONS), **read_predictions(out, VARIANTS)}
    found: dict[str, BenchmarkResults] = {}
    leaks = read_leaks(out) if settings.train_shards else {}
    lines, heads = [], []
    for one in asked:
        plain = {
            identity: p for (label, identity, variant), p in answered.items() if label == one.label and not variant
        }
        scored = score_rows(one.benchmark, one.rows, plain)
        scores = [
            found_score
            for row, this in zip(one.rows, scored, strict=True)
            if (found_score := row_score(one.benchmark, one.label, this, row.audio_filepath))
        ]
        found[one.label] = with_intervals(
            benchmark_results(settings, one, scored, answered, leaks.get(one.label)), one.benchmark, scores
        )
        lines += [score.to_line() for score in scores]
        heads.append(headline(one.benchmark, one.label, found[one.label]))
    heard = hearing(answered)
    if heard is not None:
        heads.insert(len(heads) if heard.hears else 0, sentence(heard))
    replace_lines(out / SCORES, lines)
    results = Results(heading="; ".join(heads), subject=read_subject(out), benchmarks=found, hearing=heard)
    results.write(out)
    return results


def benchmark_results(
    settings: EvaluationSettings,
    one: Asked,
    scored: list[ScoredRow],
    answered: Mapping[Key, Prediction],
    leaks: Leaks | None,
) -> BenchmarkResults:
    benchmark, sent = one.benchmark, settings.subject.kind != "predictions"
    return BenchmarkResults(
        **dict(counts(benchmark, scored)),
        version=benchmark.version,
        licence=benchmark.licence,
        source=benchmark.source.url,
        revision=benchmark.source.revision,
        data=one.settings.digest,
        data_known=benchmark.known_data.get(one.settings.digest, ""),
        metrics=list(benchmark.metrics),
        template=PromptUsed(**used_template(one.template)) if sent else None,
        max_new_tokens=one.max_new_tokens if sent else None,
        baselines=baselines(benchmark, one.rows),
        groups=by_group(benchmark, scored),
        published=published_of(benchmark),
        orders=order_results(benchmark, one.label, one.rows, answered),
        leaks=leaks,
    )
