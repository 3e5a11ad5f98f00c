"""Shards in: plain WebDataset tars, read in an order that is a function of (seed, epoch, position) alone.

S samples of audio, N frames, D dim. Nothing is unpickled: audio goes through libsndfile, targets through
numpy's own format with `allow_pickle=False`, and both are checked against the index.
"""

import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count, islice
from types import UnionType
from typing import Any

import numpy as np
import soundfile
import xxhash
from numpy.typing import NDArray

from coat.manifests import AudioError, BrokenShard, ExpertInfo, InputError, RunError, ShardIndex, ShardInfo, decode
from coat.manifests.corpus.utterance import parse_turns
from coat.manifests.shards.reading import read_samples
from coat.manifests.targets.arrays import BrokenArray
from coat.manifests.targets.members import experts_of

AUDIO_SUFFIXES = ("flac", "wav", "mp3", "ogg", "aiff")
# First of every seed here. numpy takes 0 and [0, 0, 0] for one seed: without it, epoch 0 of seed 0 would undo the
# permutation that `build-shards` made with its seed 0.
ORDER = 0xC0A7
DURATION_SLACK_S = 0.02  # between a sample's json and its sound: half an audio position of Qwen2-Audio


class BadSample(InputError):
    """One sample that cannot be used. `reason` is a word that is counted; the message is one line."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class RawSample:
    """A sample as the tar holds it."""

    shard: str
    key: str
    members: Mapping[str, bytes]  # by suffix: flac, json, <expert>.npy
    lost: str = ""  # why the tar does not give it; then it has no members

    def __str__(self) -> str:
        return f"{self.shard}:{self.key}"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A decoded sample. A target that its expert did not give is absent from `targets`."""

    id: str
    key: str
    samples_S: NDArray[np.float32]  # mono
    sample_rate: int  # Hz
    text: str | None
    prompt: str | None
    response: str | None
    choices: tuple[str, ...] = ()
    turns: tuple[tuple[str, str], ...] = ()  # prompts and answers before the prompt
    text_only: bool = False  # no audio, by intent: `samples_S` is empty
    targets: Mapping[str, NDArray[np.floating[Any]]] = field(default_factory=dict)  # by expert, [N, D] as stored
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return len(self.samples_S) / self.sample_rate


def iterate_shards(path: str) -> Iterator[Sample]:
    """Every sample of a shard set once, decoded, in the order of its tars.

    InputError: no index in `path`, or a shard that is not what the index says.
    """
    index = ShardIndex.read(path)
    for shard in index.shards:
        for raw in read_shard(index, shard):
            yield decode_sample(raw, index)


def read_shard(index: ShardIndex, shard: ShardInfo) -> Iterator[RawSample]:
    """The samples of one tar with their sidecars, without decoding. InputError where it is missing, broken
    (BrokenShard) or not what the index says.
    """
    for sample in read_samples(index, shard):
        yield RawSample(shard.name, sample.key, sample.members)


def decode_sample(raw: RawSample, index: ShardIndex) -> Sample:
    """Audio, text and targets of one sample. BadSample where a member is missing or broken."""
    meta = decode_meta(raw)
    texts = decode_texts(raw, meta)
    if texts["text_only"]:
        return Sample(key=raw.key, samples_S=np.zeros(0, np.float32), sample_rate=index.sample_rate, **texts)
    samples_S, rate = decode_audio(raw, meta, index)
    targets = {name: decode_target(raw, name, index.experts[name]) for name in experts_of(raw.members, index.experts)}
    check_whole(raw, meta, len(samples_S) / rate, targets, index)
    return Sample(key=raw.key, samples_S=samples_S, sample_rate=rate, targets=targets, **texts)


def decode_audio(raw: RawSample, meta: Mapping[str, Any], index: ShardIndex) -> tuple[NDArray[np.float32], int]:
    """Mono samples and their rate: of the member or, in a set without audio, of the file that the json names."""
    if index.audio == "none":
        try:
            clip = decode(meta["audio"]["path"], meta["audio"]["offset"], meta["audio"]["duration"])
        except (AudioError, InputError, KeyError, TypeError) as e:
            raise BadSample("no_audio", f"{raw}: the audio that it names cannot be decoded ({e})") from e
        return clip.samples_T, clip.rate
    suffix = next((s for s in AUDIO_SUFFIXES if s in raw.members), None)
    if suffix is None:
        raise BadSample("no_audio", f"{raw}: no audio member; expected .flac")
    try:
        samples, rate = soundfile.read(io.BytesIO(raw.members[suffix]), dtype="float32")
    except soundfile.LibsndfileError as e:
        raise BadSample("broken_audio", f"{raw}: audio cannot be decoded ({e})") from e
    return np.asarray(samples if samples.ndim == 1 else samples.mean(axis=1, dtype=np.float32), np.float32), rate


def decode_meta(raw: RawSample) -> dict[str, Any]:
    if raw.lost:
        raise BadSample("lost", f"{raw} is lost: {raw.lost}")
    try:
        meta = json.loads(raw.members["json"])
    except KeyError as e:
        raise BadSample("no_json", f"{raw}: no .json member") from e
    except ValueError as e:
        raise BadSample("broken_json", f"{raw}: .json is not JSON ({e})") from e
    if not isinstance(meta, dict):
        raise BadSample("broken_json", f"{raw}: .json holds {type(meta).__name__}; expected an object")
    return meta


def decode_texts(raw: RawSample, meta: Mapping[str, Any]) -> dict[str, Any]:
    """What a Sample has beside its audio and targets."""
    texts = {name: value_of(raw, meta, name, str) for name in ("text", "prompt", "response")}
    choices = tuple(value_of(raw, {"choices": c}, "choices", str) for c in value_of(raw, meta, "choices", list) or ())
    extra = value_of(raw, meta, "extra", dict) or {}
    try:
        turns = parse_turns(extra.get("turns"))
    except ValueError as e:
        raise BadSample("broken_json", f"{raw}: {e}") from e
    about = {"turns": turns, "text_only": meta.get("audio", "") is None, "extra": extra}
    return {"id": str(meta.get("id", raw.key)), **texts, "choices": choices, **about}


def value_of(raw: RawSample, meta: Mapping[str, Any], name: str, kind: type | UnionType) -> Any:
    """A value of a sample's json; None where it has none. BadSample where it is of another type."""
    value = meta.get(name)
    if not isinstance(value, kind | None):
        raise BadSample("broken_json", f"{raw}: {name} is {value!r:.60}; expected {kind}")
    return value


def seconds_of(raw: RawSample, meta: Mapping[str, Any]) -> float | None:
    """Duration as the json has it, if it does."""
    seconds = value_of(raw, meta, "duration", int | float)
    if seconds is not None and not 0 <= seconds < math.inf:  # json.loads takes NaN and Infinity
        raise BadSample("broken_json", f"{raw}: duration is {seconds}; expected seconds")
    return seconds


def check_whole(
    raw: RawSample, meta: Mapping[str, Any], seconds: float, targets: Mapping[str, NDArray[Any]], index: ShardIndex
) -> None:
    """BadSample where sound or targets are less, or more, than the sample's own json says."""
    said = seconds_of(raw, meta)
    if said is not None and abs(said - seconds) > DURATION_SLACK_S:
        raise BadSample("wrong_duration", f"{raw}: {seconds:.3f} s of audio, but its .json says {said:.3f} s")
    for name, frames in (value_of(raw, meta, "targets", dict) or {}).items():
        found = len(targets[name]) if name in targets else 0
        if name in index.experts and found != frames:
            raise BadSample("wrong_target", f"{raw}: {found} frames of {name}, but its .json says {frames}")


def decode_target(raw: RawSample, name: str, expert: ExpertInfo) -> NDArray[np.floating[Any]]:
    """`[N, D]`; frames of NaN are masked. BadSample where its members are not what the index says."""
    try:
        return expert.decode(raw.members)
    except ValueError as e:
        reason = "broken_target" if isinstance(e, BrokenArray) else "wrong_target"
        raise BadSample(reason, f"{raw}: target of {name}: {e}") from e


def read_whole(index: ShardIndex, shard: ShardInfo) -> Iterator[RawSample]:
    """As many samples as the index says, the last of them lost where a tar is cut or broken.

    InputError where it gives none at all, or where it is not what the index says.
    """
    found = 0
    try:
        for raw in read_shard(index, shard):
            found += 1
            yield raw
    except BrokenShard as e:
        if found == 0:
            raise
        for number in range(found, shard.samples):
            yield RawSample(shard.name, f"sample {number}", {}, lost=str(e))


class ShardStream:
    """Raw samples of one rank, epoch after epoch without end, from any position.

    In epoch e the shards are permuted by (seed, e) and dealt to the ranks; a rank's samples are cut into
    runs of `shuffle`, each permuted by (seed, e, rank, run). So (epoch, position) is the whole state: to go
    on, the shards before it are not opened, and at most one run and the start of one shard are read again.
    Samples that a broken tar does not give are `lost`, but keep their positions.
    """

    def __init__(self, index: ShardIndex, *, seed: int, shuffle: int, rank: int = 0, ranks: int = 1) -> None:
        if len(index.shards) < ranks:
            raise InputError(
                f"{index.path}: {len(index.shards)} shards for {ranks} ranks; build smaller shards "
                "(`coat build-shards --shard-size`), or use fewer ranks"
            )
        self.index, self.seed, self.shuffle, self.rank, self.ranks = index, seed, shuffle, rank, ranks
        self.epoch, self.position = 0, 0  # of the sample that comes next
        self.samples: Iterator[RawSample] | None = None
        self.stopped = False  # set from another thread: nothing more is read

    def __iter__(self) -> Iterator[RawSample]:
        return self

    def __next__(self) -> RawSample:
        if self.samples is None:
            self.samples = self.read_epoch(self.epoch, self.position)
        sample = next(self.samples, None)
        if sample is None:
            if self.position == 0:
                raise RunError(f"{self.index.path}: no samples for rank {self.rank}")
            self.epoch, self.position = self.epoch + 1, 0
            self.samples = None
            return next(self)
        self.position += 1
        return sample

    def run(self) -> list[RawSample]:
        """The next samples, up to the end of their run; never of two epochs."""
        first = next(self)
        last = min(-(-self.position // self.shuffle) * self.shuffle, sum(s.samples for s in self.shards_of(self.epoch)))
        return [first, *islice(self, last - self.position)]

    def random(self, epoch: int, run: int, *use: int) -> np.random.Generator:
        """Of one run of this rank, for one use."""
        return np.random.default_rng([ORDER, self.seed, epoch, self.rank, run, *use])

    def shards_of(self, epoch: int) -> list[ShardInfo]:
        order = np.random.default_rng([ORDER, self.seed, epoch]).permutation(len(self.index.shards))
        return [self.index.shards[i] for i in order[self.rank :: self.ranks]]

    def read_epoch(self, epoch: int, position: int) -> Iterator[RawSample]:
        run = position // self.shuffle
        ordered = self.read_from(epoch, run * self.shuffle)
        for r in count(run):
            held = list(islice(ordered, self.shuffle))
            if not held:
                return
            order = self.random(epoch, r).permutation(len(held))
            skip = position - r * self.shuffle if r == run else 0
            yield from (held[i] for i in order[skip:])

    def read_from(self, epoch: int, skip: int) -> Iterator[RawSample]:
        """The epoch's samples in the order of its tars, without the first `skip`."""
        for shard in self.shards_of(epoch):
            if skip >= shard.samples:
                skip -= shard.samples
                continue
            for sample in islice(read_whole(self.index, shard), skip, None):
                if self.stopped:
                    return
                yield sample
            skip = 0

    @property
    def identity(self) -> str:
        """Of everything that decides the order; a state is of use only where this is equal."""
        shards = [(s.name, s.samples, s.xxh3) for s in self.index.shards]
        data = [ORDER, shards, self.seed, self.shuffle, self.rank, self.ranks]
        return xxhash.xxh3_64_hexdigest(json.dumps(data).encode())

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "position": self.position, "identity": self.identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on behind the last sample that was given. InputError where the order would be another."""
        if state["identity"] != self.identity:
            raise InputError(
                f"{self.index.path}: the shards, their order or the number of ranks changed since this run stopped; "
                "resume with the same, or use another --out"
            )
        self.epoch, self.position, self.samples = state["epoch"], state["position"], None
