"""The audio of samples: decoded file by file, cut, encoded. T samples."""

import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import soundfile
from numpy.typing import NDArray

from coat.manifests import storage
from coat.manifests.audio.clip import AudioError
from coat.manifests.audio.file import AudioFile, check_span
from coat.manifests.errors import InputError
from coat.pipeline.gathering.pieces import nearest_index
from coat.pipeline.gathering.spool import Spool
from coat.pipeline.shards.plan import PlannedSample
from coat.pipeline.shards.recipe import Recipe

# Suffixes of the files that a reader of shards decodes as they are (by libsndfile), by libsndfile's name of the format.
AUDIO_SUFFIXES = {
    "FLAC": "flac",
    "WAV": "wav",
    "WAVEX": "wav",
    "OGG": "ogg",
    "MP3": "mp3",
    "MPEG": "mp3",
    "AIFF": "aiff",
}
REMOTE_FILES = 4  # downloaded at once; each is in memory while its spans are decoded


@dataclass(frozen=True)
class DecodedAudio:
    """The sound of a whole utterance at the rate of the shards."""

    samples_T: NDArray[np.float32]
    rate: int  # Hz
    seconds: float
    digest: str


@dataclass(frozen=True)
class AudioMember:
    """The audio of a sample as a member of a tar, its seconds, and the digest of the whole utterance's sound."""

    suffix: str
    data: bytes
    seconds: float
    source: str


class GatheredAudio:
    """The audio of samples, each file opened once, however many samples are spans of it."""

    def __init__(self, recipe: Recipe, spool: Spool) -> None:
        self.recipe, self.spool = recipe, spool
        self.members: dict[str, tuple[int, int, AudioMember] | AudioError] = {}  # by key; AudioMember without data

    def gather(self, samples: Iterable[PlannedSample]) -> None:
        by_file: dict[str, list[PlannedSample]] = defaultdict(list)
        for sample in samples:
            by_file[sample.utterance.audio].append(sample)
        remote = [audio for audio in by_file if not is_local(audio)]
        with ThreadPoolExecutor(REMOTE_FILES) as pool:  # they are waited for; local ones keep a core busy each
            gathered = pool.map(lambda audio: self.gather_file(audio, by_file[audio]), remote)
            for audio in by_file.keys() - set(remote):
                self.gather_file(audio, by_file[audio])
            for _ in gathered:
                pass  # raises what was raised there

    def gather_file(self, audio: str, samples: Sequence[PlannedSample]) -> None:
        """Spans in the order of the file; what cannot be had is kept as the reason."""
        utterances = defaultdict[tuple[float, float | None], list[PlannedSample]](list)
        for sample in samples:
            utterances[sample.utterance.offset, sample.utterance.duration].append(sample)
        opened: AudioFile | AudioError | None = None
        for offset, duration in sorted(utterances, key=lambda span: (span[0], span[1] or 0.0)):
            pieces = utterances[offset, duration]
            try:
                check_span(audio, offset, duration)
                opened = opened or open_file(audio)
                if isinstance(opened, AudioError):
                    raise opened
                rate = self.recipe.sample_rate if self.recipe.audio == "flac" else None
                decoded = decode_utterance(opened, offset, duration, rate)
            except AudioError as e:
                self.members |= {sample.key: e for sample in pieces}
                continue
            for sample in pieces:
                try:
                    member = encode_member(opened, decoded, sample, self.recipe)
                except AudioError as e:
                    self.members[sample.key] = e
                    continue
                place = self.spool.put(member.data)
                self.members[sample.key] = (
                    place,
                    len(member.data),
                    AudioMember(member.suffix, b"", member.seconds, member.source),
                )

    def take(self, sample: PlannedSample) -> AudioMember:
        """AudioError where it cannot be had."""
        found = self.members.pop(sample.key)
        if isinstance(found, AudioError):
            raise found
        place, length, member = found
        return AudioMember(member.suffix, self.spool.get(place, length), member.seconds, member.source)


def is_local(audio: str) -> bool:
    """Also of what is not opened at all, whose problem is found where it would be."""
    try:
        return storage.is_local(audio)
    except InputError:
        return True


def open_file(audio: str) -> AudioFile | AudioError:
    try:
        return AudioFile(audio)
    except AudioError as e:
        return e


def decode_utterance(file: AudioFile, offset: float, duration: float | None, rate: int | None) -> DecodedAudio:
    """The whole utterance; `rate` None: at the rate of its file."""
    span = file.span(offset, duration)
    rate = rate or span.rate
    samples_T = np.concatenate(list(span.pieces(rate)))
    return DecodedAudio(samples_T, rate, span.seconds, span.digest)


def encode_member(file: AudioFile, decoded: DecodedAudio, sample: PlannedSample, recipe: Recipe) -> AudioMember:
    """AudioError where the utterance ends before the sample begins."""
    seconds = min(sample.seconds or decoded.seconds, decoded.seconds - sample.start)
    if seconds <= 0:
        raise AudioError("changed", f"{file.path}: it is shorter than when it was extracted; extract it anew")
    suffix, data = "", b""
    if recipe.audio == "original" and sample.seconds is None:
        suffix, data = original_file(file, decoded)
    if not suffix:
        suffix, data = "flac", encode_flac(piece_samples(decoded, sample), decoded.rate)
    return AudioMember(suffix, data, seconds, decoded.digest)


def piece_samples(decoded: DecodedAudio, sample: PlannedSample) -> NDArray[np.float32]:
    """The part of the utterance that a sample has."""
    if sample.seconds is None:
        return decoded.samples_T
    first, stop = (nearest_index(t, decoded.rate) for t in (sample.start, sample.start + sample.seconds))
    return decoded.samples_T[first:stop]


def original_file(file: AudioFile, decoded: DecodedAudio) -> tuple[str, bytes]:
    """Suffix and bytes of the file, where the utterance is the whole of one that libsndfile reads; else nothing."""
    if not file.is_plain:
        return "", b""
    source = file.source
    data = storage.read_bytes(source.name) if source.data is None else source.data
    try:
        info = soundfile.info(io.BytesIO(data))
    except soundfile.LibsndfileError:
        return "", b""
    is_whole = abs(info.frames - len(decoded.samples_T)) <= 1 and info.samplerate == decoded.rate
    return (AUDIO_SUFFIXES[info.format], data) if info.format in AUDIO_SUFFIXES and is_whole else ("", b"")


def encode_flac(samples_T: NDArray[np.float32], rate: int) -> bytes:
    """16-bit mono FLAC; resampling may overshoot full scale, which is clipped."""
    sink = io.BytesIO()
    soundfile.write(sink, np.clip(samples_T, -1.0, 1.0), rate, format="FLAC", subtype="PCM_16")
    return sink.getvalue()
