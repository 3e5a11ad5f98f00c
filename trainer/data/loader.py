"""Batches without waiting: one thread reads ahead, others decode and pad; a cursor says how far the order was given.

Threads, not processes: libsndfile, numpy, torch and the tokenizer give up the interpreter's lock, tensors need no
copy between processes, and the order cannot depend on who was faster.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from coat.manifests import InputError, ShardIndex, storage
from coat.trainer.config.sections import DataConfig
from coat.trainer.data.ahead import Ahead
from coat.trainer.data.batching import PlannedBatch, plan_batches
from coat.trainer.data.collator import Collator, EncodedSample
from coat.trainer.data.cursor import LoaderCursor
from coat.trainer.data.data_sets import DataSet, DataSets, SampleStream
from coat.trainer.data.decoding import decode_meta, decode_sample
from coat.trainer.data.samples import BadSample, RawSample
from coat.trainer.data.stream import SHUFFLE_BYTES
from coat.trainer.model.batch import Batch
from coat.trainer.students.unusable import UnusableInput

EXCLUDED = "excluded"
LOGGED_PER_REASON = 10  # samples left out that are named in the log


@dataclass(frozen=True)
class LoadedBatch:
    batch: Batch | None  # None: none of its samples can be used
    errors: list[tuple[str, BadSample | UnusableInput]]  # of those that cannot, with the names of their sets
    given: Counter[str]  # see `Loader.given`
    next_cursor: LoaderCursor


class Loader:
    """Batches of a stream without end; `config.workers` changes the speed, never the order.

    `cursor` stands behind the last batch that was *given*, so what was read ahead is read again on resume. Iterating
    anew goes on there, too. Samples that cannot be used are left out, counted by reason and named (the first ten),
    or raised, as `config.unusable` says; so are those that a broken tar has lost.
    """

    def __init__(
        self,
        stream: SampleStream,
        collator: Collator,
        config: DataConfig,
        log: Callable[[str], None] = lambda _: None,
        pin: bool = False,
        sets: Mapping[str, DataSet] | None = None,
    ) -> None:
        """`sets`: those of the stream by name, where they are mixed."""
        self.stream, self.collator, self.config, self.log, self.pin = stream, collator, config, log, pin
        self.sets = dict(sets or {})
        self.limits = {name: one.limits(config) for name, one in self.sets.items()}
        self.cursor = LoaderCursor(stream.cursor)
        self.skipped: Counter[str] = Counter()
        # By set, where there are several: <set>/samples, <set>/audio_s, <set>/tokens (positions without padding), and
        # <set>/skipped/<reason>.
        self.given: Counter[str] = Counter()
        self.excluded = excluded_ids(config)

    def __iter__(self) -> Iterator[Batch]:
        """Without end, unless nothing of a whole epoch can be used: BadSample with the reasons' counts."""
        stream = self.stream.fork()  # of this iteration alone
        stream.seek(self.cursor.stream)
        plan = plan_batches(stream, self.cursor.window, self.config, self.sequence_length)
        held = self.config.shuffle_bytes or SHUFFLE_BYTES
        batches = max(1, self.config.shuffle // self.config.batch_size)
        planned = Ahead(plan, lambda batch: batch.bytes, held, batches)
        loading: deque[Future[LoadedBatch]] = deque()
        unusable_in_a_row = 0  # samples
        taker, decoders = ThreadPoolExecutor(1), ThreadPoolExecutor(max(1, self.config.workers))
        try:
            while True:
                while len(loading) < 2 * self.config.workers + 1:
                    loading.append(decoders.submit(self.load_batch, taker.submit(next, planned)))
                loaded = loading.popleft().result()
                self.count_skipped(loaded.errors)
                self.given.update(loaded.given)
                self.cursor = replace(loaded.next_cursor, skipped=dict(self.skipped), given=dict(self.given))
                unusable_in_a_row = 0 if loaded.batch else unusable_in_a_row + len(loaded.errors)
                if unusable_in_a_row > stream.index.samples:
                    raise nothing_usable_error(stream.index, self.skipped, loaded.errors[-1][1])
                if loaded.batch:
                    yield loaded.batch
        finally:
            # Not waited for: the garbage collector may end an iteration in one of these threads.
            planned.close()
            for pool in (taker, decoders):
                pool.shutdown(wait=False, cancel_futures=True)

    def nth(self, number: int) -> Batch:
        """The `number`th batch (from 1); nothing is read behind it."""
        batches = iter(self)
        try:
            return next(islice(batches, number - 1, None))
        finally:
            batches.close()  # type: ignore[attr-defined]

    def set_of(self, raw: RawSample) -> str:
        return raw.place.data_set if raw.place else ""

    def sequence_length(self, raw: RawSample) -> int:
        return self.collator.sequence_length(raw, self.config)

    def load_batch(self, future: "Future[PlannedBatch]") -> LoadedBatch:
        planned = future.result()
        encoded: list[EncodedSample] = []
        errors: list[tuple[str, BadSample | UnusableInput]] = []
        given: Counter[str] = Counter()
        for raw in planned.samples:
            name = self.set_of(raw)
            if self.is_excluded(raw):
                errors.append((name, BadSample(EXCLUDED, f"{raw}: named by data.exclude")))
                continue
            try:
                encoded.append(self.encode(raw, name))
            except (BadSample, UnusableInput) as e:
                if self.config.unusable == "raise":
                    raise
                errors.append((name, e))
                continue
            if self.sets:
                counts = {"samples": 1, "audio_s": encoded[-1].seconds, "tokens": len(encoded[-1].ids)}
                given.update({f"{name}/{what}": count for what, count in counts.items()})
        batch = self.collator.collate(encoded) if encoded else None
        return LoadedBatch(batch.pinned() if batch and self.pin else batch, errors, given, planned.next_cursor)

    def encode(self, raw: RawSample, name: str) -> EncodedSample:
        """With the targets that its set has of the trained experts: of the others it has no loss."""
        index = self.sets[name].index if name in self.sets else self.collator.index
        experts = [expert for expert in self.collator.experts if expert in index.experts]
        return self.collator.encode(decode_sample(raw, index, experts), self.limits.get(name, self.config))

    def is_excluded(self, raw: RawSample) -> bool:
        if not self.excluded or "json" not in raw.members:
            return False
        try:
            return str(decode_meta(raw).get("id", raw.key)) in self.excluded
        except BadSample:
            return False  # decoding says what is wrong with it

    def count_skipped(self, errors: Sequence[tuple[str, BadSample | UnusableInput]]) -> None:
        """Count them by reason, and name the first of each in the log."""
        for name, error in errors:
            self.skipped[error.reason] += 1
            if self.sets:
                self.given[f"{name}/skipped/{error.reason}"] += 1
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
        cursor = LoaderCursor.from_dict(state)
        if cursor.window and state.get("batching", self.batching) != self.batching:
            said = f"batches are of {self.batching} from here on, and were of {state['batching']}"
            self.log(f"{said}: of {self.config.shuffle} samples, those that were trained on already come again")
            cursor = replace(cursor, window=None)
        self.go_on(cursor)

    def go_on(self, cursor: LoaderCursor) -> None:
        """As `load_state_dict`."""
        self.stream.seek(cursor.stream)
        self.cursor = cursor
        self.skipped, self.given = Counter(cursor.skipped), Counter(cursor.given)


def loader_of(
    data: DataSets,
    collator: Collator,
    rank: int = 0,
    ranks: int = 1,
    log: Callable[[str], None] = lambda _: None,
    pin: bool = False,
) -> Loader:
    """Of a run's data, from its beginning. InputError where there are fewer shards than ranks."""
    stream = data.stream(rank, ranks, list(collator.experts))
    return Loader(stream, collator, data.config, log, pin, data.by_name if data.several else None)


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
