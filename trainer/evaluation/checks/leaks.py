"""Leaks: rows whose sound, or whose question, lies in the shards that were trained on.

Sound is compared by the digest of what is decoded, so a file that was renamed, moved or packed otherwise is found; one
that was cut, resampled or encoded anew before it came into the corpus is not. Questions are found by their words and
those of their choices, whatever the template (questions.py).
"""

import io
from collections.abc import Iterable, Iterator, Sequence

import soundfile

from coat.manifests import AudioError, Clip, ShardIndex, Utterance, decode, storage
from coat.manifests.errors import ReadFault
from coat.manifests.shards.reading import read_samples
from coat.manifests.shards.samples_table import read_samples_table
from coat.trainer.data.decoding import AUDIO_SUFFIXES, decode_meta, decode_texts
from coat.trainer.data.samples import RawSample
from coat.trainer.evaluation.checks.questions import Questions
from coat.trainer.evaluation.results import Leaks

FILE = "leaks.json"
DECODED_AT_ONCE = 4


class TrainingData:
    """What lies in several shard sets: digests of their sounds, and which of these questions."""

    def __init__(self, shards: Sequence[str], questions: Questions) -> None:
        self.shards = list(shards)
        self.samples = 0
        self.sounds: set[str] = set()
        self.questions = questions
        for path in shards:
            self.add(ShardIndex.read(path))

    def add(self, index: ShardIndex) -> None:
        known = self.known_sounds(index)
        self.samples += index.samples
        for shard in index.shards:
            for sample in read_samples(index, shard, ()):
                raw = RawSample(shard.name, sample.key, sample.members)
                texts = decode_texts(raw, decode_meta(raw))
                if texts["prompt"]:
                    turns = [text for turn in texts["turns"] for text in turn]
                    self.questions.look_in(texts["prompt"], [*texts["choices"], *turns])
                if not known and not texts["text_only"]:
                    self.sounds |= set(sounds_of(raw))

    def known_sounds(self, index: ShardIndex) -> bool:
        """Whether samples.parquet says what was heard, of all samples: it does not in sets of before it."""
        if not index.samples_xxh3:
            return False
        sources = read_samples_table(index.path, index.samples_xxh3).column("source").to_pylist()
        self.sounds |= {source for source in sources if source}
        return all(sources)


def sounds_of(raw: RawSample) -> Iterator[str]:
    """The digest of a sample's own audio: 16 bits at the rate of the set."""
    for suffix in AUDIO_SUFFIXES:
        if suffix in raw.members:
            samples, rate = soundfile.read(io.BytesIO(raw.members[suffix]), dtype="float32", always_2d=True)
            yield Clip(samples.mean(axis=1), rate).digest


def find_leaks(rows: Sequence[Utterance], training: TrainingData) -> Leaks:
    """In the order of the rows."""
    heard = list(storage.in_parallel(digest_of, rows, DECODED_AT_ONCE))
    return Leaks(
        shards=training.shards,
        samples=training.samples,
        audio=ids(row for row, digest in zip(rows, heard, strict=True) if digest in training.sounds),
        question=ids(row for row in rows if training.questions.found(row)),
        not_compared=sum(digest is None and not row.text_only for row, digest in zip(rows, heard, strict=True)),
    )


def digest_of(row: Utterance) -> str | None:
    """None where there is no sound, or none that can be decoded here."""
    if row.text_only:
        return None
    try:
        return decode(row.audio, row.offset, row.duration).digest
    except (AudioError, ReadFault):
        return None


def ids(rows: Iterable[Utterance]) -> list[str]:
    return [row.id for row in rows]


def sentence(label: str, found: Leaks) -> str:
    """One line for the user."""
    unheard = f" ({found.not_compared:,} could not be heard here)" if found.not_compared else ""
    return (
        f"{label}: of its rows {len(found.audio):,} have audio that lies in the training shards{unheard}, and "
        f"{len(found.question):,} a question that does"
    )
