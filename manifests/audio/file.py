"""Spans of audio files as mono float32: libsndfile first, FFmpeg for what it cannot read.

T samples. A span that cannot be decoded raises AudioError with a reason that is recorded with its row; a machine, share
or store that cannot be read raises EnvironmentFault (`faults.py`), which says nothing about the row.

    decode("a.flac", 3.0, 2.5)         one span
    file = AudioFile("a.flac")         many spans of one file, which is downloaded and checked once
    file.span(3.0, 2.5).decode()
    for piece_T in file.span().pieces(16000): ...      long audio, of which some seconds are held
"""

import io
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import numpy as np
import soundfile
import soxr
import xxhash
from numpy.typing import NDArray

from coat.manifests import storage
from coat.manifests.audio import containers, faults, ffmpeg
from coat.manifests.audio.clip import AudioError, AudioInfo, Clip, clip_digest
from coat.manifests.errors import one_line

# Manifests round durations; a span may end this much after its file, and is cut there.
SPAN_TOLERANCE_S = 0.05
# An MP3 frame takes bits from frames before it, so decoding begins this much before a span: right after
# a seek libsndfile gives up to 0.25 s of wrong samples.
MP3_PREROLL_S = 2.0
# To seek in an MP3 is to scan all headers before (70 ms for half an hour), and what comes then depends by an ulp on
# where decoding began. So an MP3 is decoded in blocks of this length, counted from its start: spans share them.
MP3_BLOCK_S = 60.0
# More frames than any file has: what libsndfile says of a FLAC that was written to a pipe
# (length unknown), and cannot seek in.
UNKNOWN_FRAMES = 1 << 40
PIECE_S = 30.0  # of a file, decoded at once


def probe(path: str) -> AudioInfo:
    """Read the header. AudioError as `decode` gives it, where the header tells."""
    source = open_audio(path)
    try:
        info = soundfile.info(source)
    except (soundfile.LibsndfileError, TypeError) as e:
        info = ffmpeg.read_info(path, e)
        return info if info.seconds else replace(info, seconds=decode(path).seconds)
    check_not_cut(path, source, info)
    seconds = decode(path).seconds if info.frames >= UNKNOWN_FRAMES else info.frames / info.samplerate
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
    """

    block: tuple[int, NDArray[np.float32]] | None = None  # of an MP3: its number, and `[T, channels]`

    def __init__(self, path: str, data: bytes | None = None) -> None:
        """`data`: the bytes of the file, where they were read already."""
        self.path = path
        self.source = open_audio(path, data)
        self.whole_T: NDArray[np.float32] | None = None
        try:
            with self.open() as f:
                check_not_cut(path, self.source, f)
                self.samples, self.rate, self.format = f.frames, f.samplerate, f.format
        except (soundfile.LibsndfileError, TypeError) as e:  # TypeError: a name that ends in .raw
            self.whole_T, self.rate = ffmpeg.read_whole_file(path, e)
        if self.whole_T is None and self.samples >= UNKNOWN_FRAMES:
            self.whole_T, self.rate = ffmpeg.read_whole_file(path, ValueError("its header does not say how long it is"))
        if self.whole_T is not None:
            self.samples = len(self.whole_T)

    def open(self) -> soundfile.SoundFile:
        return soundfile.SoundFile(self.source if isinstance(self.source, str) else io.BytesIO(self.source.getvalue()))

    def span(self, offset: float = 0.0, duration: float | None = None) -> "Span":
        """A span that is not decoded yet. AudioError where the file ends before it."""
        check_span(self.path, offset, duration)
        start, samples = span_samples(self.path, offset, duration, self.samples, self.rate)
        return Span(self, start, samples)

    def read(self, start: int, samples: int) -> Iterator[NDArray[np.float32]]:
        """So many samples, mono, in pieces of PIECE_S; AudioError where they are not there or not finite."""
        if self.whole_T is not None:
            yield to_mono(self.path, self.whole_T[start : start + samples, None])
            return
        done = 0
        try:
            for piece_TC in self.mp3(start, samples) if self.format.startswith("MP") else self.direct(start, samples):
                done += len(piece_TC)
                yield to_mono(self.path, piece_TC)
        except soundfile.LibsndfileError as e:  # the header was sound, so the data are not
            raise AudioError("truncated", f"{self.path}: cannot be decoded to its end ({one_line(e, 200)})") from e
        if done < samples:
            raise AudioError("truncated", f"{self.path}: {done} samples of {samples}; the file is cut short")

    def direct(self, start: int, samples: int) -> Iterator[NDArray[np.float32]]:
        """`[T, channels]` in pieces; they end where the data do."""
        piece = round(PIECE_S * self.rate)
        with self.open() as f:
            f.seek(start)
            for done in range(0, samples, piece):
                wanted = min(piece, samples - done)
                samples_TC = cast(NDArray[np.float32], f.read(wanted, dtype="float32", always_2d=True))
                yield samples_TC
                if len(samples_TC) < wanted:
                    return

    def mp3(self, start: int, samples: int) -> Iterator[NDArray[np.float32]]:
        """As `direct`, from blocks that do not depend on the span."""
        size, stop = round(MP3_BLOCK_S * self.rate), start + samples
        for number in range(start // size, -(-stop // size)):
            first = number * size
            block = self.block  # several threads may decode spans of one file
            if block is None or block[0] != number:
                preroll = min(first, round(MP3_PREROLL_S * self.rate))
                with self.open() as f:
                    f.seek(first - preroll)
                    samples_TC = f.read(preroll + min(size, self.samples - first), dtype="float32", always_2d=True)
                self.block = block = number, cast(NDArray[np.float32], samples_TC)[preroll:]
            wanted_TC = block[1][max(0, start - first) : stop - first]
            yield wanted_TC.copy()  # a clip should not keep its block
            if len(wanted_TC) < min(stop - first, size) - max(0, start - first):
                return


@dataclass
class Span:
    """Part of a file: `samples` at the file's rate from sample `start` on."""

    file: AudioFile
    start: int
    samples: int
    digest: str = ""  # as Clip has it; known when `pieces` has come to its end

    @property
    def rate(self) -> int:
        return self.file.rate

    @property
    def seconds(self) -> float:
        return self.samples / self.rate

    def decode(self) -> Clip:
        pieces = list(self.file.read(self.start, self.samples))
        return Clip(pieces[0] if len(pieces) == 1 else np.concatenate(pieces), self.rate)

    def pieces(self, rate: int) -> Iterator[NDArray[np.float32]]:
        """`decode().at(rate)` bit for bit, piece by piece."""
        samples = xxhash.xxh3_64()
        resampler = None if rate == self.rate else soxr.ResampleStream(self.rate, rate, 1, dtype="float32")
        done = 0
        for piece_T in self.file.read(self.start, self.samples):
            samples.update(piece_T.data)
            done += len(piece_T)
            yield piece_T if resampler is None else resampler.resample_chunk(piece_T, last=done == self.samples)
        self.digest = clip_digest(samples, self.rate)


def to_mono(path: str, samples_TC: NDArray[np.float32]) -> NDArray[np.float32]:
    """`[T]`, contiguous: the mean of the channels."""
    samples_T = samples_TC[:, 0] if samples_TC.shape[1] == 1 else samples_TC.mean(axis=1, dtype=np.float32)
    if not np.isfinite(samples_T).all():
        raise AudioError("not_finite", f"{path}: NaN or infinite samples; write the file again")
    return np.ascontiguousarray(samples_T, dtype=np.float32)


def open_audio(path: str, data: bytes | None = None) -> str | io.BytesIO:
    """What soundfile opens: a local path, or bytes that were read or are a remote object's. EnvironmentFault as
    `faults` tells it."""
    faults.check_protocol(path)
    source: str | io.BytesIO
    if data is None and storage.is_local(path):
        source = str(storage.local_path(path))
        with faults.reading(path):
            status = os.stat(source)
        if not stat.S_ISREG(status.st_mode):  # a pipe would block, a device never end
            raise AudioError("unreadable", f"{path}: not a regular file; expected an audio file")
        size = status.st_size
    else:
        data = faults.read_whole(path) if data is None else data
        size, source = len(data), io.BytesIO(data)
    if size == 0:
        raise AudioError("empty", f"{path}: the file has no bytes")
    return source


class OpenedFile(Protocol):
    """What libsndfile says of a file that it opened."""

    format: Any
    extra_info: Any


def check_not_cut(path: str, source: str | io.BytesIO, opened: OpenedFile) -> None:
    """AudioError where libsndfile guessed raw audio from a suffix such as .au, or passed over a cut."""
    if opened.format == "RAW":
        raise AudioError("unreadable", f"{path}: no header of an audio file; expected WAV, FLAC, OGG, MP3 or the like")
    if containers.log_states_more(opened.extra_info) or (opened.format == "OGG" and not ends_whole(path, source)):
        raise AudioError("truncated", f"{path}: shorter than its header says; the file is cut short")


def ends_whole(path: str, source: str | io.BytesIO) -> bool:
    with faults.reading(path):
        return containers.ends_with_whole_ogg_page(source)


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
