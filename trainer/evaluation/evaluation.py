"""An evaluation from its settings to results.json, on one rank or several.

On the main rank rows are read and the folder is opened; each rank asks its batches; then on the main one single
questions are timed, files joined, answers judged where there is a judge, and results written (finishing.py).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coat.manifests import storage
from coat.trainer.evaluation.asking.ask import Ask, Asker
from coat.trainer.evaluation.asking.chat import ChatClient
from coat.trainer.evaluation.asking.loop import AnswerFiles, ask_all, replace_lines
from coat.trainer.evaluation.asking.others import read_others
from coat.trainer.evaluation.asking.planning import batches, plain_asks, subset
from coat.trainer.evaluation.checks.cost import COST, Cost, Timer, machine, measure
from coat.trainer.evaluation.checks.judge import judge_answers, requests_of
from coat.trainer.evaluation.checks.leaks import FILE as LEAKS
from coat.trainer.evaluation.checks.leaks import TrainingData, find_leaks
from coat.trainer.evaluation.checks.leaks import sentence as leaks_sentence
from coat.trainer.evaluation.checks.questions import Questions
from coat.trainer.evaluation.data import seconds_of
from coat.trainer.evaluation.finishing import (
    all_asks,
    disk,
    join,
    parsed_choice,
    plain_answers,
    read_leaks,
    score_folder,
    with_choices,
)
from coat.trainer.evaluation.out_folder import Asked, check_subject, prepare_folder, read_asked
from coat.trainer.evaluation.predictions import PREDICTIONS, read_predictions
from coat.trainer.evaluation.results import Results, Subject
from coat.trainer.evaluation.settings import EvaluationSettings, JudgeSettings
from coat.trainer.evaluation.templates import COT

IN_TEXT = "student, thinking in text"
MakeAsker = Callable[[EvaluationSettings], Asker]
MakeJudge = Callable[[JudgeSettings], ChatClient]


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
    make_judge: MakeJudge = lambda judge: ChatClient(judge.url, judge.model),
) -> Results | None:
    """Ask and score. The results, on the main rank. InputError, RunError: one line."""
    begun = begin(settings, out, progress) if ranks.is_main else None
    ranks.wait()
    settings, asked = begun or read_begun(out)
    ask(settings, asked, out, make_asker, ranks=ranks, workers=workers, progress=progress)
    ranks.wait()
    return end(settings, asked, out, make_judge, progress) if ranks.is_main else None


def begin(settings: EvaluationSettings, out: Path, progress: Progress) -> tuple[EvaluationSettings, list[Asked]]:
    """On the main rank, before any is asked: the folder with its rows, and what of them was trained on."""
    settings = prepare_folder(out, settings)
    asked = read_asked(out, settings)
    look_for_leaks(settings, asked, out, progress)
    return settings, asked


def read_begun(out: Path) -> tuple[EvaluationSettings, list[Asked]]:
    """What the main rank has begun, for the others."""
    settings = EvaluationSettings.read(out)
    return settings, read_asked(out, settings)


def end(
    settings: EvaluationSettings, asked: list[Asked], out: Path, make_judge: MakeJudge, progress: Progress
) -> Results:
    """On the main rank, when all are asked."""
    join(settings, asked, out)
    if settings.judge is not None:
        judge(asked, out, make_judge(settings.judge), settings.batch_size, progress)
    return score_folder(settings, asked, out)


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
    to_time = timed_asks(settings, asked) if ranks.is_main else {}
    if (measured := Cost.read(out)) and to_time.keys() <= measured.modes.keys():
        to_time = {}
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
    known = {tuple(leaks.shards) for leaks in read_leaks(out).values()}
    if not settings.train_shards or known == {settings.train_shards}:
        return
    progress.log(f"looking for the rows in {', '.join(settings.train_shards)}")
    training = TrainingData(settings.train_shards, Questions(row for one in asked for row in one.rows))
    found = {one.label: find_leaks(one.rows, training) for one in asked}
    for label, leaks in found.items():
        progress.log(leaks_sentence(label, leaks))
    with disk(out):
        data = storage.to_json({label: leaks.model_dump(mode="json") for label, leaks in found.items()})
        storage.write_bytes(str(out / LEAKS), data)


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


def judge(asked: list[Asked], out: Path, client: ChatClient, at_once: int, progress: Progress) -> None:
    """E/judgements.jsonl, of all answers that no rule can score."""
    answered = read_predictions(out)
    wanted = [
        request
        for one in asked
        for request in requests_of(one.label, one.benchmark, one.rows, plain_answers(answered, one.label))
    ]
    progress.log(f"{client.model} judges {len(wanted):,} answers")
    judge_answers(wanted, client, out, at_once)
