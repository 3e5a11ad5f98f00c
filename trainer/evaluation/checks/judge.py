"""Judgements of answers that no rule can score, by a server with OpenAI's chat API. Optional, and never the default.

A judge is asked at temperature 0, once an answer. What it was asked and what it said stands in E/judgements.jsonl, so
that scores can be made again without it; what cannot be read in what it said is counted, and wrong.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Self

import xxhash

from coat.manifests import InputError, Utterance
from coat.trainer.evaluation.asking.chat import ChatClient, Refused
from coat.trainer.evaluation.asking.loop import append_lines
from coat.trainer.evaluation.benchmark import Benchmark
from coat.trainer.evaluation.predictions import Prediction, lines_of, to_line
from coat.trainer.evaluation.results import Judged

JUDGEMENTS = "judgements.jsonl"
MAX_TOKENS = 1024  # of a judgement


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What a judge said of one answer. `said` None: it refused, and `error` says why."""

    benchmark: str
    id: str
    model: str
    request: str
    said: str | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    error: str | None = None

    @classmethod
    def of_line(cls, line: str) -> Self:
        return cls(**json.loads(line))


def read_judgements(folder: Path) -> dict[tuple[str, str], Judgement]:
    """By benchmark and id. InputError where a line is none."""
    found = {}
    for number, line in enumerate(lines_of(folder / JUDGEMENTS), start=1):
        try:
            one = Judgement.of_line(line)
        except (ValueError, TypeError) as e:
            raise InputError(f"{folder / JUDGEMENTS}:{number}: not a judgement ({e})") from e
        found[one.benchmark, one.id] = one
    return found


def requests_of(
    label: str, benchmark: Benchmark, rows: Sequence[Utterance], predictions: Mapping[str, Prediction]
) -> Iterator[tuple[str, str, str]]:
    """Label, id and request of each answer that a judge must see."""
    for row in rows:
        given = predictions.get(row.id)
        if given is not None and given.answer is not None and given.answer.strip():
            request = benchmark.judge_request(row, given.answer)
            if request is not None:
                yield label, row.id, request


def judge_answers(wanted: Sequence[tuple[str, str, str]], client: ChatClient, folder: Path, at_once: int) -> None:
    """Ask for what there is no judgement of yet. RunError where the judge does not answer: the same command goes on."""
    known = read_judgements(folder)
    missing = [one for one in wanted if not is_of(known.get(one[:2]), one[2], client.model)]
    with ThreadPoolExecutor(at_once) as pool:
        for start in range(0, len(missing), at_once):
            group = missing[start : start + at_once]
            judged = list(pool.map(lambda one: judge_one(client, *one), group))
            append_lines(folder / JUDGEMENTS, [to_line(one) for one in judged])


def is_of(judgement: Judgement | None, request: str, model: str) -> bool:
    return judgement is not None and (judgement.request, judgement.model) == (request, model)


def judge_one(client: ChatClient, label: str, identity: str, request: str) -> Judgement:
    try:
        said = client.complete([{"role": "user", "content": request}], MAX_TOKENS)
    except Refused as e:
        return Judgement(benchmark=label, id=identity, model=client.model, request=request, error=str(e))
    return Judgement(
        benchmark=label, id=identity, model=client.model, request=request, said=said.text,
        prompt_tokens=said.prompt_tokens, answer_tokens=said.answer_tokens,
    )  # fmt: skip


def judged_results(
    benchmark: Benchmark, rows: Mapping[str, Utterance], judgements: Sequence[Judgement]
) -> Judged | None:
    """None where there are none. `version` is of all that was asked."""
    if not judgements:
        return None
    unparsed = sum(
        one.said is None or benchmark.judged(rows[one.id], one.said).unparsed for one in judgements if one.id in rows
    )
    first = next(islice(judgements, 1))
    return Judged(
        model=first.model,
        prompt=first.request,
        version=xxhash.xxh3_64_hexdigest("\n".join(one.request for one in judgements).encode()),
        rows=len(judgements),
        unparsed=unparsed,
        prompt_tokens=sum(one.prompt_tokens or 0 for one in judgements),
        answer_tokens=sum(one.answer_tokens or 0 for one in judgements),
    )
