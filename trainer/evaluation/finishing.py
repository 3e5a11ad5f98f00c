"""From answers to results: files are joined, rows scored, results.json written. Nothing is asked here."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from coat.manifests import RunError, storage
from coat.trainer.evaluation.asking.ask import Ask
from coat.trainer.evaluation.asking.loop import AnswerFiles, replace_lines
from coat.trainer.evaluation.asking.planning import guard_asks, order_asks, plain_asks
from coat.trainer.evaluation.baselines import baselines
from coat.trainer.evaluation.benchmark import score
from coat.trainer.evaluation.checks.hearing import hearing, sentence
from coat.trainer.evaluation.checks.judge import Judgement, judged_results, read_judgements
from coat.trainer.evaluation.checks.leaks import FILE as LEAKS
from coat.trainer.evaluation.checks.orders import order_results
from coat.trainer.evaluation.out_folder import Asked, read_asked, read_subject
from coat.trainer.evaluation.predictions import PREDICTIONS, SCORES, VARIANTS, Key, Prediction, read_predictions
from coat.trainer.evaluation.results import BenchmarkResults, Leaks, PromptUsed, Results
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


@contextmanager
def disk(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise RunError(f"{out}: cannot be written ({e.strerror or e}); make room, and run the same command") from e


def all_asks(settings: EvaluationSettings, asked: list[Asked]) -> list[Ask]:
    """Rows as they are; then the guard's, of all benchmarks together, and other orders of choices."""
    transcribe, asks, orders = settings.transcribe_prompt, [], []
    for one in asked:
        plain = plain_asks(one.label, one.rows, one.template, one.max_new_tokens, transcribe)
        asks += plain
        orders += order_asks(plain, settings.orders, settings.seed, one.template, transcribe)
    return [*asks, *guard_asks(asks, settings.guard, settings.seed), *orders]


def parsed_choice(asked: Asked, row: Any, answer: str) -> str | None:
    """By the strict rule."""
    if not answer.strip() or asked.benchmark.judge_request(row, answer) is not None:
        return None
    verdicts = score(asked.benchmark, row, answer)
    return verdicts[1].choice if verdicts else None


def with_choices(asked: Asked, predictions: list[Prediction]) -> list[Prediction]:
    """Parsed anew."""
    rows = {row.id: row for row in asked.rows}
    return [
        replace(p, choice=None if p.answer is None else parsed_choice(asked, rows[p.id], p.answer))
        for p in predictions
    ]  # fmt: skip


def join(settings: EvaluationSettings, asked: list[Asked], out: Path) -> None:
    """What all ranks wrote, in one file each."""
    if settings.subject.kind != "predictions":
        with disk(out):
            AnswerFiles(out).join(all_asks(settings, asked))


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
    return score_folder(settings, asked, out)


def score_folder(settings: EvaluationSettings, asked: list[Asked], out: Path) -> Results:
    """Write scores.jsonl and results.json."""
    answered = {**read_predictions(out, PREDICTIONS), **read_predictions(out, VARIANTS)}
    found: dict[str, BenchmarkResults] = {}
    leaks = read_leaks(out) if settings.train_shards else {}
    judgements = read_judgements(out) if settings.judge else {}
    lines, heads = [], []
    for one in asked:
        judged = [judgement for (label, _), judgement in judgements.items() if label == one.label]
        said = {judgement.id: judgement.said or "" for judgement in judged}
        scored = score_rows(one.benchmark, one.rows, plain_answers(answered, one.label), said)
        scores = [
            found_score
            for row, this in zip(one.rows, scored, strict=True)
            if (found_score := row_score(one.benchmark, one.label, this, row.audio_filepath))
        ]
        results = benchmark_results(settings, one, scored, answered, leaks.get(one.label), judged)
        found[one.label] = with_intervals(results, one.benchmark, scores)
        lines += [score.to_line() for score in scores]
        heads.append(headline(one.benchmark, one.label, found[one.label]))
    heard = hearing(answered)
    if heard is not None:
        heads.insert(len(heads) if heard.hears else 0, sentence(heard))
    made = Results(heading="; ".join(heads), subject=read_subject(out), benchmarks=found, hearing=heard)
    with disk(out):
        replace_lines(out / SCORES, lines)
        made.write(out)
    return made


def plain_answers(answered: Mapping[Key, Prediction], label: str) -> dict[str, Prediction]:
    """Of one benchmark, by id: the rows as they are."""
    return {identity: p for (of, identity, variant), p in answered.items() if of == label and not variant}


def benchmark_results(
    settings: EvaluationSettings,
    one: Asked,
    scored: list[ScoredRow],
    answered: Mapping[Key, Prediction],
    leaks: Leaks | None,
    judged: Sequence[Judgement],
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
        judge=judged_results(benchmark, {row.id: row for row in one.rows}, judged),
    )


def read_leaks(out: Path) -> dict[str, Leaks]:
    """By benchmark, of an evaluation that has looked for them."""
    if not (out / LEAKS).exists():
        return {}
    return {label: Leaks.model_validate(leaks) for label, leaks in storage.read_json(str(out / LEAKS)).items()}
