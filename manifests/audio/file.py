"""Spans of audio files as mono float32: libsndfile first, FFmpeg for what it cannot read.

T samples. A span that cannot be decoded raises AudioError with a reason that is recorded with its row; a machine, share
or store that cannot be read raises EnvironmentFault (`faults.py`), which says nothing about the row.

    decode("a.flac", 3.0, 2.5)         one span
    file = AudioFile("a.flac")         many spans of one file, which is downloaded and checked once
    file.span(3.0, 2.5).decode()
    for piece_T in file.span().pieces(16000): ...      long audio, of which some seconds are held
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import soundfile
import soxr
import xxhash
from numpy.typing import NDArray

from coat.manifests import addresses
from coat.manifests.audio import faults, ffmpeg
from coat.manifests.audio.channels import check_channel
from coat.manifests.audio.clip import AudioError, AudioInfo, Clip, clip_digest
from coat.manifests.audio.source import Source
from coat.manifests.audio.stream import Stream, check_not_cut, samples_held

# Manifests round durations; a span may end this much after its file, and is cut there.
SPAN_TOLERANCE_S = 0.05


def probe(path: str) -> AudioInfo:
    """Read the header. AudioError as `decode` gives it, where the header tells."""
    info = read_header(path)
    check_channel(path, addresses.split_channel(path)[1], info.channels)
    return info


def read_header(path: str) -> AudioInfo:
    source = Source(path)
    with source.held_in_memory():
        parts = source.parts()
        if len(parts) > 1 or not parts[0].is_whole:
            file = AudioFile(path)
            return AudioInfo(file.samples / file.rate, file.rate, file.channels, file.format)
        (part,) = parts
        try:
            info = part.opened(soundfile.info)
        except (soundfile.LibsndfileError, TypeError) as e:
            info = ffmpeg.read_info(path, part.read(), e)
            return info if info.seconds else replace(info, seconds=decode(path).seconds)
        with faults.reading(path):
            check_not_cut(part, info)
        samples, doubt = samples_held(part, info.format, info.frames, info.samplerate)
    seconds = decode(path).seconds if doubt else samples / info.samplerate
    return AudioInfo(seconds, info.samplerate, info.channels, info.format)


def decode(path: str, offset: float = 0.0, duration: float | None = None) -> Clip:
    """Decode a span (seconds; no duration: to the end) and mix it to mono by the mean of its channels."""
    check_span(path, offset, duration)
    return AudioFile(path).span(offset, duration).decode()


class AudioFile:
    """A file, checked and at hand, to decode spans from one by one. AudioError as `decode`.

    What is shared is the download, the check, the last block of an MP3, and what FFmpeg decodes (whole: not all of its
    seeks are exact). Else each span has a libsndfile handle of its own, which costs a millisecond: of one handle, a
    second seek gives other samples than the first would (MP3: by an ulp; Vorbis: up to 0.4 for some 200 samples).
    Of files that were joined end to end, the samples of all follow each other.
    """

    def __init__(self, path: str, data: bytes | None = None) -> None:
        """`data`: the bytes of the file, where they were read already."""
        self.path = path
        self.source = source = Source(path, data)
        with source.held_in_memory():
            parts = source.parts()
            with faults.reading(path):
                self.streams = [Stream(part, keep=len(parts) == 1) for part in parts]
        first = self.streams[0]
        self.rate, self.format, self.channels = first.rate, first.format, first.channels
        if other := {s.rate for s in self.streams} - {self.rate}:
            joined = f"{len(parts)} files in one, of {self.rate} Hz and {', '.join(map(str, other))} Hz"
            raise AudioError("unreadable", f"{path}: {joined}; split it")
        self.samples = sum(s.samples for s in self.streams)
        # Whether libsndfile reads the file as it is, and seeks in it, which other programs may count on.
        as_it_is = len(parts) == 1 and parts[0].is_whole and source.channel is None
        self.is_plain = as_it_is and first.whole_T is None and first.seekable

    def let_go(self) -> None:
        """Close what waits for the first span: of many files that are at hand none should hold a descriptor."""
        for stream in self.streams:
            stream.let_go()

    def span(self, offset: float = 0.0, duration: float | None = None) -> "Span":
        """A span that is not decoded yet. AudioError where the file ends before it."""
        check_span(self.path, offset, duration)
        start, samples = span_samples(self.path, offset, duration, self.samples, self.rate)
        return Span(self, start, samples)

    def read(self, start: int, samples: int, decoders: set[str]) -> Iterator[NDArray[np.float32]]:
        """So many samples, mono, in pieces; AudioError where they are not there or not finite.

        `decoders` is told which libraries gave them.
        """
        before = 0
        for stream in self.streams:
            first, stop = max(start - before, 0), min(start + samples - before, stream.samples)
            if first < stop:
                yield from stream.read(first, stop - first, decoders)
            before += stream.samples


@dataclass
class Span:
    """Part of a file: `samples` at the file's rate from sample `start` on."""

    file: AudioFile
    start: int
    samples: int
    digest: str = ""  # as Clip has it; known when `pieces` has come to its end
    decoders: set[str] = field(default_factory=set)  # libsndfile, ffmpeg: what gave its samples, once it was decoded

    @property
    def rate(self) -> int:
        return self.file.rate

    @property
    def seconds(self) -> float:
        return self.samples / self.rate

    @property
    def decoder(self) -> str | None:
        """One line; None where nothing was decoded yet."""
        return ", ".join(sorted(self.decoders)) or None

    def decode(self) -> Clip:
        pieces = list(self.file.read(self.start, self.samples, self.decoders))
        return Clip(pieces[0] if len(pieces) == 1 else np.concatenate(pieces), self.rate)

    def pieces(self, rate: int) -> Iterator[NDArray[np.float32]]:
        """`decode().at(rate)` bit for bit, piece by piece."""
        samples = xxhash.xxh3_64()
        resampler = None if rate == self.rate else soxr.ResampleStream(self.rate, rate, 1, dtype="float32")
        done = 0
        for piece_T in self.file.read(self.start, self.samples, self.decoders):
            samples.update(piece_T.data)
            done += len(piece_T)
            yield piece_T if resampler is None else resampler.resample_chunk(piece_T, last=done == self.samples)
        self.digest = clip_digest(samples, self.rate)


def check_span(path: str, offset: float, duration: float | None) -> None:
    if offset < 0 or (duration is not None and duration <= 0):
        raise AudioError("span", f"{path}: offset {offset} s and duration {duration} s; neither may be negative")


def span_samples(path: str, offset: float, duration: float | None, total: int, rate: int) -> tuple[int, int]:
    """First sample and number of samples of a span; AudioError where it ends after the file does."""
    if not total:
        raise AudioError("empty", f"{path}: no samples; expected audio")
    start = round(offset * rate)
    stop = total if duration is None else round((offset + duration) * rate)
    if start >= total or stop > total + SPAN_TOLERANCE_S * rate:
        end = "its end" if duration is None else f"{offset + duration:.3f} s"
        raise AudioError("span", f"{path}: span {offset:.3f} s to {end}, but the file lasts {total / rate:.3f} s")
    if stop <= start:
        raise AudioError("empty", f"{path}: no samples at {offset} s; expected audio")
    return start, min(stop, total) - start
