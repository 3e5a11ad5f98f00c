"""Batches without waiting: one thread reads ahead, others decode and pad; a cursor says how far the order was given.

Threads, not processes: libsndfile, numpy, torch and the tokenizer give up the interpreter's lock, tensors need no
copy between processes, and the order cannot depend on who was faster.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from coat.manifests import InputError, ShardIndex, storage
from coat.trainer.config.sections import DataConfig
from coat.trainer.data.collator import Collator
from coat.trainer.data.cursor import LoaderCursor
from coat.trainer.data.decoding import decode_meta, decode_sample
from coat.trainer.data.samples import BadSample, RawSample
from coat.trainer.data.stream import ShardStream
from coat.trainer.model.batch import Batch
from coat.trainer.students.base import UnusableInput

BATCH_ORDER = 1  # use of a window's random numbers
EXCLUDED = "excluded"
LOGGED_PER_REASON = 10  # samples left out that are named in the log


@dataclass(frozen=True)
class PlannedBatch:
    samples: list[RawSample]
    next_cursor: LoaderCursor  # of the batch behind it


@dataclass(frozen=True)
class LoadedBatch:
    batch: Batch | None  # None: none of its samples can be used
    errors: list[BadSample | UnusableInput]  # of those that cannot
    next_cursor: LoaderCursor


class Loader:
    """Batches of a stream without end; `config.workers` changes the speed, never the order.

    `cursor` stands behind the last batch that was *given*, so what was read ahead is read again on resume. Iterating
    anew goes on there, too. Samples that cannot be used are left out, counted by reason and named (the first ten),
    or raised, as `config.unusable` says; so are those that a broken tar has lost.
    """

    def __init__(
        self,
        stream: ShardStream,
        collator: Collator,
        config: DataConfig,
        log: Callable[[str], None] = lambda _: None,
        pin: bool = False,
    ) -> None:
        self.stream, self.collator, self.config, self.log, self.pin = stream, collator, config, log, pin
        self.cursor = LoaderCursor(stream.cursor)
        self.skipped: Counter[str] = Counter()
        self.excluded = excluded_ids(config)

    def __iter__(self) -> Iterator[Batch]:
        """Without end, unless nothing of a whole epoch can be used: BadSample with the reasons' counts."""
        stream = copy(self.stream)  # of this iteration alone
        stream.seek(self.cursor.stream)
        planned_batches = self.plan_batches(stream, self.cursor.batch)
        planned: deque[Future[PlannedBatch]] = deque()
        loading: deque[Future[LoadedBatch]] = deque()
        unusable_in_a_row = 0  # samples
        reader, decoders = ThreadPoolExecutor(1), ThreadPoolExecutor(max(1, self.config.workers))
        try:
            while True:
                while len(planned) < math.ceil(self.config.shuffle / self.config.batch_size):
                    planned.append(reader.submit(next, planned_batches))
                while len(loading) < 2 * self.config.workers + 1:
                    loading.append(decoders.submit(self.load_batch, planned.popleft()))
                    planned.append(reader.submit(next, planned_batches))
                loaded = loading.popleft().result()
                self.count_skipped(loaded.errors)
                self.cursor = replace(loaded.next_cursor, skipped=dict(self.skipped))
                unusable_in_a_row = 0 if loaded.batch else unusable_in_a_row + len(loaded.errors)
                if unusable_in_a_row > stream.index.samples:
                    raise nothing_usable_error(stream.index, self.skipped, loaded.errors[-1])
                if loaded.batch:
                    yield loaded.batch
        finally:
            stream.stopped = True
            # Not waited for: the garbage collector may end an iteration in one of these threads.
            for pool in (reader, decoders):
                pool.shutdown(wait=False, cancel_futures=True)

    def nth(self, number: int) -> Batch:
        """The `number`th batch (from 1); nothing is read behind it."""
        batches = iter(self)
        try:
            return next(islice(batches, number - 1, None))
        finally:
            batches.close()  # type: ignore[attr-defined]

    def plan_batches(self, stream: ShardStream, first: int) -> Iterator[PlannedBatch]:
        """Which samples each batch is made of. The batches before number `first` of the first window are left out."""
        size, budget = self.config.batch_size, self.config.batch_tokens
        while budget is None:
            yield PlannedBatch(list(islice(stream, size)), LoaderCursor(stream.cursor))
        while True:
            begin, window = stream.cursor, stream.next_window()
            lengths = [self.collator.sequence_length(raw, self.config) for raw in window]
            batches = group_by_length(lengths, size, budget)
            number = (stream.position - 1) // stream.shuffle
            order = stream.random(stream.epoch, number, BATCH_ORDER).permutation(len(batches))
            for b in range(first, len(batches)):
                is_last = b + 1 == len(batches)
                next_cursor = LoaderCursor(stream.cursor) if is_last else LoaderCursor(begin, b + 1)
                yield PlannedBatch([window[i] for i in batches[order[b]]], next_cursor)
            first = 0

    def load_batch(self, future: "Future[PlannedBatch]") -> LoadedBatch:
        planned = future.result()
        encoded, errors = [], []
        for raw in planned.samples:
            if self.is_excluded(raw):
                errors.append(BadSample(EXCLUDED, f"{raw}: named by data.exclude"))
                continue
            try:
                sample = decode_sample(raw, self.collator.index, self.collator.experts)
                encoded.append(self.collator.encode(sample, self.config))
            except (BadSample, UnusableInput) as e:
                if self.config.unusable == "raise":
                    raise
                errors.append(e)
        batch = self.collator.collate(encoded) if encoded else None
        return LoadedBatch(batch.pinned() if batch and self.pin else batch, errors, planned.next_cursor)

    def is_excluded(self, raw: RawSample) -> bool:
        if not self.excluded or "json" not in raw.members:
            return False
        try:
            return str(decode_meta(raw).get("id", raw.key)) in self.excluded
        except BadSample:
            return False  # decoding says what is wrong with it

    def count_skipped(self, errors: Sequence[BadSample | UnusableInput]) -> None:
        """Count them by reason, and name the first of each in the log."""
        for error in errors:
            self.skipped[error.reason] += 1
            count = self.skipped[error.reason]
            if count <= LOGGED_PER_REASON:
                more = "; more of these are only counted" if count == LOGGED_PER_REASON else ""
                self.log(f"skipped ({error.reason}{more}): {error}")

    @property
    def batching(self) -> str:
        """How a window is cut into batches."""
        return f"{self.config.batch_size} samples, {self.config.batch_tokens} tokens"

    def state_dict(self) -> dict[str, Any]:
        """The cursor, for a checkpoint's JSON."""
        return {**self.cursor.to_dict(), "batching": self.batching}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on behind the last batch that was given. InputError where the order would be another.

        Where windows are cut into batches otherwise now, the window in hand begins anew.
        """
        self.cursor = LoaderCursor.from_dict(state)
        if self.cursor.batch and state.get("batching", self.batching) != self.batching:
            said = f"batches are of {self.batching} from here on, and were of {state['batching']}"
            self.log(f"{said}: of {self.config.shuffle} samples, those that were trained on already come again")
            self.cursor = replace(self.cursor, batch=0)
        self.stream.seek(self.cursor.stream)
        self.skipped = Counter(self.cursor.skipped)


def excluded_ids(config: DataConfig) -> frozenset[str]:
    """InputError where there is no such file."""
    if config.exclude_file is None:
        return frozenset(config.exclude)
    try:
        lines = storage.read_bytes(config.exclude_file).decode().splitlines()
    except FileNotFoundError as e:
        raise InputError(f"data.exclude_file {config.exclude_file}: no such file; expected an id a line") from e
    except UnicodeDecodeError as e:
        raise InputError(f"data.exclude_file {config.exclude_file}: not UTF-8; expected an id a line") from e
    return frozenset(config.exclude) | {line.strip() for line in lines if line.strip()}


def nothing_usable_error(index: ShardIndex, skipped: Mapping[str, int], last: BadSample | UnusableInput) -> BadSample:
    reasons = ", ".join(f"{reason} {count}" for reason, count in skipped.items())
    return BadSample(
        last.reason,
        f"{index.path}: no sample of a whole epoch can be used ({reasons}); build other shards. Last: {last}",
    )


def group_by_length(lengths: Sequence[int], size: int, budget: int) -> list[list[int]]:
    """Indices in groups of like length, each of at most `size`, and of `budget` when padded to its longest.

    What is longer than the budget is alone; equal lengths keep their order.
    """
    groups: list[list[int]] = []
    for i in np.argsort(lengths, kind="stable").tolist():
        if groups and len(groups[-1]) < size and lengths[i] * (len(groups[-1]) + 1) <= budget:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups
