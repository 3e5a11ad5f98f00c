"""The questions that are asked, in pools: a clip's donor, and the mean of clips, are of the same pool.

A pool is some rows that follow each other, so that what is in memory does not grow with the shards: compressed audio of
one pool, and a few rows decoded.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice

import numpy as np
import xxhash

from coat.manifests import InputError, ShardIndex
from coat.trainer.config.train_config import TrainConfig
from coat.trainer.data.collator import Collator, EncodedSample, prompt_and_response
from coat.trainer.data.decoding import AUDIO_SUFFIXES, decode_meta, decode_sample, decode_texts
from coat.trainer.data.samples import BadSample, RawSample, Sample
from coat.trainer.data.shard_reading import read_shard_or_lost
from coat.trainer.data.usable import with_prompt
from coat.trainer.students.unusable import UnusableInput

KEPT = 32  # rows whose features are kept: those of 30 s are 1.5 MB each
NO_AUDIO = np.zeros(0, np.float32)


@dataclass(frozen=True, eq=False)
class Row:
    number: int  # in the order of the shards, from 0
    texts: Sample  # without audio and targets
    clip: str  # a digest of the sound: rows that share it are no independent draws
    load: Callable[[], Sample]  # with audio


@dataclass(frozen=True)
class Skipped:
    number: int
    id: str
    reason: str


@dataclass(frozen=True)
class Pool:
    number: int
    rows: list[Row | Skipped]

    @property
    def usable(self) -> list[Row]:
        return [row for row in self.rows if isinstance(row, Row)]


def shard_pools(
    index: ShardIndex, config: TrainConfig, size: int, limit: int | None = None, first: int = 0
) -> Iterator[Pool]:
    """All rows of a shard set, or the first `limit`; `size` of them a pool. `first`: the number of the first row."""
    raws = (raw for shard in index.shards for raw in read_shard_or_lost(index, shard, ()))
    numbered = enumerate(islice(raws, limit), start=first)
    for number in range(1 << 62):
        if not (rows := [row_of(n, raw, index, config) for n, raw in islice(numbered, size)]):
            return
        yield Pool(number, rows)


def row_of(number: int, raw: RawSample, index: ShardIndex, config: TrainConfig) -> Row | Skipped:
    try:
        meta = decode_meta(raw)
        texts = Sample(key=raw.key, samples_S=NO_AUDIO, sample_rate=1, **decode_texts(raw, meta))
    except BadSample as why:
        return Skipped(number, raw.key, why.reason)
    sound = next((raw.members[s] for s in AUDIO_SUFFIXES if s in raw.members), None)
    heard = json.dumps(meta.get("audio"), sort_keys=True).encode() if sound is None else sound
    digest = xxhash.xxh3_64_hexdigest(heard)
    return Row(number, with_prompt(texts, config), digest, lambda: with_prompt(decode_sample(raw, index, ()), config))


class Encoder:
    """Encodes rows as training does; the features of the last few are kept."""

    def __init__(self, collator: Collator, config: TrainConfig) -> None:
        self.collator, self.config = collator, config
        self.load = lru_cache(KEPT)(lambda row: row.load())
        self.encoded = lru_cache(KEPT)(self.encode)

    def asked(self, row: Row) -> tuple[str, tuple[tuple[str, str], ...]]:
        """Prompt and turns: what makes two questions one."""
        return prompt_and_response(row.texts, self.config.data)[0], row.texts.turns

    def encode(self, sound: Row, question: Row) -> EncodedSample:
        """The question of one row about the sound of another. BadSample or UnusableInput where it cannot be asked."""
        heard = self.load(sound)
        sample = replace(question.texts, samples_S=heard.samples_S, sample_rate=heard.sample_rate)
        return self.collator.encode(sample, self.config.data)

    def of(self, sound: Row, question: Row) -> EncodedSample:
        """Where the same is asked of both, the row of the sound as it is: it is encoded once."""
        if sound.texts.response is not None and self.asked(sound) == self.asked(question):
            question = sound
        return self.encoded(sound, question)

    def checked(self, pool: Pool) -> Pool:
        """Without rows that have no audio or no answer, or that the student cannot take whole."""
        return Pool(pool.number, [row if isinstance(row, Skipped) else self.check(row) for row in pool.rows])

    def check(self, row: Row) -> Row | Skipped:
        if row.texts.text_only or row.texts.response is None:
            return Skipped(row.number, row.texts.id, "no_audio" if row.texts.text_only else "no_response")
        try:
            self.of(row, row)
        except (BadSample, UnusableInput) as why:
            return Skipped(row.number, row.texts.id, why.reason)
        return row


def donors_of(rows: Sequence[Row], encoder: Encoder, key: str | None = None) -> list[Row | None]:
    """For each row the one whose states it is given; None where the pool has no other clip.

    The next one, round the pool, of those that ask the same and are answered otherwise; else that ask the same; else
    of all other clips. With `key`, the row whose id stands there in its extra keys; InputError where it is not
    in the pool.
    """
    if key is not None:
        return [named_donor(row, rows, key) for row in rows]
    asked = [encoder.asked(row) for row in rows]
    alike: dict[object, list[int]] = {}
    for i, question in enumerate(asked):
        alike.setdefault(question, []).append(i)
    return [donor_of(i, rows, alike[asked[i]]) for i in range(len(rows))]


def donor_of(i: int, rows: Sequence[Row], alike: Sequence[int]) -> Row | None:
    """`alike`: the places of rows that ask the same, in order."""
    row, at = rows[i], alike.index(i)
    others = [rows[j] for j in (*alike[at + 1 :], *alike[:at]) if rows[j].clip != row.clip]
    otherwise = (other for other in others if other.texts.response != row.texts.response)
    anyone = (other for other in (*rows[i + 1 :], *rows[:i]) if other.clip != row.clip)
    return next(otherwise, None) or next(iter(others), None) or next(anyone, None)


def named_donor(row: Row, rows: Sequence[Row], key: str) -> Row:
    named = row.texts.extra.get(key)
    found = next((other for other in rows if other.texts.id == named), None)
    if found is None:
        raise InputError(
            f"row {row.texts.id}: its {key} is {named!r:.80}, which is no usable row of the same pool; "
            "expected the id of a row near it, or a larger --pool"
        )
    return found
