"""The loop: audio is decoded ahead in threads, batches are answered, and lines are appended as answers come.

Rank r of n takes every n-th batch and writes files of its own (rank 0 the ones with the plain names). At the end they
are joined in the order of the asks, so that a finished folder is the same bytes whatever happened on the way.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from coat.manifests import AudioError, InputError, RunError, storage
from coat.trainer.evaluation.asking.ask import Answered, Ask, Asker, Failed
from coat.trainer.evaluation.asking.audio import clip_of
from coat.trainer.evaluation.predictions import (
    PREDICTIONS,
    TIMINGS,
    VARIANTS,
    Key,
    Prediction,
    Timing,
    lines_of,
    read_predictions,
)

ParseChoice = Callable[[Ask, str], str | None]
AHEAD = 4  # batches that are decoded before they are asked


class AnswerFiles:
    """The files of one rank, and of all of them together."""

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder, self.rank = folder, rank

    def own(self, name: str) -> Path:
        return self.folder / (name if self.rank == 0 else f"{name.removesuffix('.jsonl')}-rank{self.rank}.jsonl")

    def all_of(self, name: str) -> list[Path]:
        """The plain one, and those of other ranks, of this run or of one before."""
        return [self.folder / name, *sorted(self.folder.glob(f"{name.removesuffix('.jsonl')}-rank*.jsonl"))]

    def answered(self) -> dict[Key, Prediction]:
        """All that was answered so far, by whichever rank."""
        found: dict[Key, Prediction] = {}
        for name in (PREDICTIONS, VARIANTS):
            for path in self.all_of(name):
                found |= read_predictions(self.folder, path.name)
        return found

    def append(self, predictions: Sequence[Prediction], timings: Sequence[Timing]) -> None:
        """A batch. RunError where the disk does not take it."""
        plain = [p.to_line() for p in predictions if not p.variant]
        variants = [p.to_line() for p in predictions if p.variant]
        for name, lines in ((TIMINGS, [t.to_line() for t in timings]), (VARIANTS, variants), (PREDICTIONS, plain)):
            if lines:
                append_lines(self.own(name), lines)

    def join(self, asks: Sequence[Ask]) -> None:
        """One file each, in the order of the asks; what was never asked for is dropped."""
        order = {ask.key: i for i, ask in enumerate(asks)}
        answered = self.answered()
        for name, variant in ((PREDICTIONS, False), (VARIANTS, True)):
            keys = [key for key in order if key in answered and bool(key[2]) == variant]
            replace_lines(self.folder / name, [answered[key].to_line() for key in keys])
        timings = {timing_key(line): line for path in self.all_of(TIMINGS) for line in lines_of(path)}
        replace_lines(self.folder / TIMINGS, list(timings.values()))
        for name in (PREDICTIONS, VARIANTS, TIMINGS):
            for path in self.all_of(name)[1:]:
                path.unlink()


def timing_key(line: str) -> Key:
    """A batch that was asked twice, since a kill had cut it, has its last time."""
    data = json.loads(line)
    return data["benchmark"], data["id"], data["variant"]


def append_lines(path: Path, lines: Sequence[str]) -> None:
    """Behind the last whole line: what a crash cut short is dropped."""
    try:
        with path.open("ab+") as f:
            f.truncate(end_of_lines(f))
            f.write("".join(lines).encode())
    except OSError as e:
        raise RunError(f"{path}: cannot be written ({e.strerror or e}); make room, and run the same command") from e


def end_of_lines(f: Any) -> int:
    """Bytes up to the end of the last whole line."""
    end = f.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 65536)
        f.seek(start)
        found = f.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def replace_lines(path: Path, lines: Sequence[str]) -> None:
    """At once; where there are none, there is no file."""
    if lines:
        storage.write_bytes(str(path), "".join(lines).encode())
    else:
        with suppress(FileNotFoundError):
            path.unlink()


def ask_all(
    asks: Sequence[Ask],
    groups: Sequence[Sequence[int]],
    asker: Asker,
    files: AnswerFiles,
    parse: ParseChoice,
    *,
    ranks: int = 1,
    workers: int = 2,
    answered: Mapping[Key, Prediction] | None = None,
    on_asks: Callable[[int], None] = lambda _: None,
) -> None:
    """Answer this rank's batches that are not answered whole. RunError where nobody answers, or a disk fails."""
    done = files.answered() if answered is None else answered
    own = [group for n, group in enumerate(groups) if n % ranks == files.rank]
    open_groups = [group for group in own if any(asks[i].key not in done for i in group)]
    on_asks(sum(map(len, own)) - sum(map(len, open_groups)))
    ahead = AHEAD * max(map(len, open_groups), default=1)
    prepared = storage.in_parallel(
        lambda i: prepare(asks[i], asker), (i for group in open_groups for i in group), max(1, workers), ahead
    )
    for group in open_groups:
        batch = [asks[i] for i in group]
        ready = list(islice(prepared, len(group)))
        start = time.perf_counter()
        found = answer_batch(asker, ready, batch[0].max_new_tokens)
        seconds = time.perf_counter() - start
        predictions = [
            ask.prediction(one, None if one.text is None else parse(ask, one.text))
            for ask, one in zip(batch, found, strict=True)
        ]
        files.append(predictions, list(timings_of(batch, seconds)))
        on_asks(len(group))


def prepare(ask: Ask, asker: Asker) -> Any:
    """What `answer` takes, or Failed. A fault of the machine is raised: it says nothing about the row."""
    try:
        return asker.prepare(ask, clip_of(ask))
    except (AudioError, InputError) as e:
        return Failed(str(e))


def answer_batch(asker: Asker, prepared: Sequence[Any], max_new_tokens: int) -> list[Answered]:
    """In the same order; what could not be prepared is not asked."""
    asked = [one for one in prepared if not isinstance(one, Failed)]
    answers = iter(asker.answer(asked, max_new_tokens) if asked else ())
    return [Answered(error=one.error) if isinstance(one, Failed) else next(answers) for one in prepared]


def timings_of(batch: Sequence[Ask], seconds: float) -> Iterator[Timing]:
    for ask in batch:
        yield Timing(
            benchmark=ask.benchmark,
            id=ask.row.id,
            variant=ask.variant,
            seconds=round(seconds, 6),
            rows=len(batch),
        )
