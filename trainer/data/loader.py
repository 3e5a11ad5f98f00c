"""Batches without waiting: one thread reads ahead, others decode and pad, and the state is a place in the order.

Threads, not processes: libsndfile, numpy, torch and the tokenizer give up the interpreter's lock, tensors need no
copy between processes, and the order cannot depend on who was faster.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from itertools import islice
from typing import Any

import numpy as np

from coat.manifests import ShardIndex
from coat.trainer.config.sections import DataConfig
from coat.trainer.data.collator import Collator
from coat.trainer.data.decoding import decode_sample
from coat.trainer.data.samples import BadSample, RawSample
from coat.trainer.data.stream import ShardStream
from coat.trainer.model.batch import Batch
from coat.trainer.students.base import Unusable

BATCH_ORDER = 1  # use of a run's random numbers
NAMED = 10  # samples left out that are named in the log, of each reason

State = dict[str, Any]  # epoch, position and identity of the stream, batches given of the run there
Cut = tuple[list[RawSample], State]  # samples of one batch, and the state behind it
Made = tuple[Batch | None, list[BadSample | Unusable], State]


class Loader:
    """Batches of a stream without end; `config.workers` changes the speed, never the order.

    `state_dict` is of the last batch that was *given*, so what was read ahead is read again on resume. Iterating
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
        self.state: State = {**stream.state_dict(), "batch": 0}
        self.skipped: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Batch]:
        """Without end, unless nothing of a whole epoch can be used: BadSample with the reasons' counts."""
        stream = copy(self.stream)  # of this iteration alone
        stream.load_state_dict(self.state)
        cuts = self.cuts(stream, self.state["batch"])
        reading: deque[Future[Cut]] = deque()
        making: deque[Future[Made]] = deque()
        since = 0  # samples in a row that could not be used
        reader, decoders = ThreadPoolExecutor(1), ThreadPoolExecutor(max(1, self.config.workers))
        try:
            while True:
                while len(reading) < math.ceil(self.config.shuffle / self.config.batch_size):
                    reading.append(reader.submit(next, cuts))
                while len(making) < 2 * self.config.workers + 1:
                    making.append(decoders.submit(self.make, reading.popleft()))
                    reading.append(reader.submit(next, cuts))
                batch, errors, state = making.popleft().result()
                self.count(errors)
                self.state = {**state, "skipped": dict(self.skipped)}
                since = 0 if batch else since + len(errors)
                if since > stream.index.samples:
                    raise nothing_usable(stream.index, self.skipped, errors[-1])
                if batch:
                    yield batch
        finally:
            stream.stopped = True
            for pool in (
                reader,
                decoders,
            ):  # not waited for: the collector may end an iteration in one of these threads
                pool.shutdown(wait=False, cancel_futures=True)

    def nth(self, number: int) -> Batch:
        """The batch that comes as so-manieth (from 1); nothing is read behind it."""
        batches = iter(self)
        try:
            return next(islice(batches, number - 1, None))
        finally:
            batches.close()  # type: ignore[attr-defined]

    def cuts(self, stream: ShardStream, given: int) -> Iterator[Cut]:
        """What each batch is made of. `given` batches of the first run are left out."""
        size, budget = self.config.batch_size, self.config.batch_tokens
        while budget is None:
            yield list(islice(stream, size)), {**stream.state_dict(), "batch": 0}
        while True:
            before, run = stream.state_dict(), stream.run()
            groups = by_length([self.collator.length(raw, self.config) for raw in run], size, budget)
            number = (stream.position - 1) // stream.shuffle
            order = stream.random(stream.epoch, number, BATCH_ORDER).permutation(len(groups))
            for b in range(given, len(groups)):
                whole = b + 1 == len(groups)
                state = {**stream.state_dict(), "batch": 0} if whole else {**before, "batch": b + 1}
                yield [run[i] for i in groups[order[b]]], state
            given = 0

    def make(self, cut: "Future[Cut]") -> Made:
        raws, state = cut.result()
        items, errors = [], []
        for raw in raws:
            try:
                items.append(self.collator.item(decode_sample(raw, self.collator.index), self.config))
            except (BadSample, Unusable) as e:
                if self.config.unusable == "raise":
                    raise
                errors.append(e)
        batch = self.collator.batch(items) if items else None
        return batch.pinned() if batch and self.pin else batch, errors, state

    def count(self, errors: Sequence[BadSample | Unusable]) -> None:
        for error in errors:
            self.skipped[error.reason] += 1
            if self.skipped[error.reason] <= NAMED:
                more = "; more of these are only counted" if self.skipped[error.reason] == NAMED else ""
                self.log(f"skipped ({error.reason}{more}): {error}")

    def state_dict(self) -> State:
        return self.state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.stream.load_state_dict(state)
        self.skipped = Counter(state.get("skipped", {}))
        self.state = {"batch": 0, **state}


def nothing_usable(index: ShardIndex, skipped: Mapping[str, int], last: BadSample | Unusable) -> BadSample:
    reasons = ", ".join(f"{reason} {count}" for reason, count in skipped.items())
    return BadSample(
        last.reason,
        f"{index.path}: no sample of a whole epoch can be used ({reasons}); build other shards. Last: {last}",
    )


def by_length(lengths: Sequence[int], size: int, budget: int) -> list[list[int]]:
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
