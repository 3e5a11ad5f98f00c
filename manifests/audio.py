"""Audio files to mono float32: libsndfile first, FFmpeg (torchcodec) for what it cannot read.

T samples. A span that cannot be decoded raises AudioError with a reason that is recorded with its row.
"""

import io
import os
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import soundfile
import soxr
import xxhash
from numpy.typing import NDArray

from coat.manifests import files
from coat.manifests.errors import InputError

# Manifests round durations; a span may end this much after its file, and is cut there.
SPAN_TOLERANCE_S = 0.05


class AudioError(Exception):
    """A span that cannot be decoded. `reason` is one of the words below; the message is one line.

    missing, empty, unreadable, truncated, not_finite, span
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:  # both arguments cross process borders
        return type(self), (self.reason, str(self))


@dataclass(frozen=True)
class AudioInfo:
    """Of a file as a whole, from its header."""

    seconds: float
    rate: int  # Hz
    channels: int
    format: str


@dataclass(frozen=True)
class Clip:
    """A decoded span: `samples_T` float32, mono, at the file's own rate."""

    samples_T: NDArray[np.float32]
    rate: int  # Hz

    @property
    def seconds(self) -> float:
        return len(self.samples_T) / self.rate

    @property
    def digest(self) -> str:
        """16 hex digits of the sound itself: a rewritten or moved file with the same samples keeps it."""
        return xxhash.xxh3_64_hexdigest(self.samples_T.tobytes() + str(self.rate).encode())

    def at(self, rate: int) -> NDArray[np.float32]:
        """Resampled (soxr HQ), float32 `[T * rate / self.rate]`."""
        if rate == self.rate:
            return self.samples_T
        return soxr.resample(self.samples_T, self.rate, rate).astype(np.float32, copy=False)


def probe(path: str) -> AudioInfo:
    """Read the header. AudioError as `decode` gives it."""
    source = open_source(path)
    try:
        info = soundfile.info(source)
    except (soundfile.LibsndfileError, TypeError) as e:
        return ffmpeg_info(path, e)
    return AudioInfo(info.frames / info.samplerate, info.samplerate, info.channels, info.format)


def decode(path: str, offset: float = 0.0, duration: float | None = None) -> Clip:
    """Decode a span (seconds; no duration: to the end) and mix it to mono by the mean of its channels."""
    if offset < 0 or (duration is not None and duration <= 0):
        raise AudioError("span", f"{path}: offset {offset} s and duration {duration} s; neither may be negative")
    source = open_source(path)
    try:
        samples_TC, rate = read_soundfile(path, source, offset, duration)
    except soundfile.LibsndfileError as e:
        samples_TC, rate = read_ffmpeg(path, e, offset, duration)
    if not len(samples_TC):
        raise AudioError("empty", f"{path}: no samples at {offset} s; expected audio")
    samples_T = samples_TC[:, 0] if samples_TC.shape[1] == 1 else samples_TC.mean(axis=1, dtype=np.float32)
    if not np.isfinite(samples_T).all():
        raise AudioError("not_finite", f"{path}: NaN or infinite samples; write the file again")
    return Clip(np.ascontiguousarray(samples_T, dtype=np.float32), rate)


def open_source(path: str) -> str | io.BytesIO:
    """What soundfile opens: a local path, or the bytes of a remote object."""
    try:
        if files.is_local(path):
            local = str(files.local_path(path))
            size = os.stat(local).st_size
            if os.path.isdir(local):
                raise AudioError("unreadable", f"{path}: is a folder; expected an audio file")
            source: str | io.BytesIO = local
        else:
            data = files.read_bytes(path)
            size, source = len(data), io.BytesIO(data)
    except FileNotFoundError as e:
        raise AudioError("missing", f"{path}: no such file") from e
    except (OSError, InputError) as e:
        raise AudioError("unreadable", f"{path}: {e}") from e
    if size == 0:
        raise AudioError("empty", f"{path}: the file has no bytes")
    return source


def read_soundfile(
    path: str, source: str | io.BytesIO, offset: float, duration: float | None
) -> tuple[NDArray[np.float32], int]:
    """`[T, channels]` and the rate. AudioError where the file holds less than its header or span says."""
    with soundfile.SoundFile(source) as f:
        start, frames = span_frames(path, offset, duration, f.frames, f.samplerate)
        try:
            f.seek(start)
            samples_TC = cast(NDArray[np.float32], f.read(frames, dtype="float32", always_2d=True))
        except soundfile.LibsndfileError as e:  # the header was sound, so the data are not
            raise AudioError("truncated", f"{path}: cannot be decoded to its end ({one_line(e)})") from e
        if len(samples_TC) < frames:
            raise AudioError("truncated", f"{path}: {len(samples_TC)} samples of {frames}; the file is cut short")
        return samples_TC, f.samplerate


def span_frames(path: str, offset: float, duration: float | None, total: int, rate: int) -> tuple[int, int]:
    """First sample and number of samples of a span; AudioError where it ends after the file does."""
    start = round(offset * rate)
    stop = total if duration is None else round((offset + duration) * rate)
    if start >= max(total, 1) or stop > total + SPAN_TOLERANCE_S * rate:
        end = "its end" if duration is None else f"{offset + duration:.3f} s"
        raise AudioError("span", f"{path}: span {offset:.3f} s to {end}, but the file lasts {total / rate:.3f} s")
    return start, min(stop, total) - start


def read_ffmpeg(path: str, cause: Exception, offset: float, duration: float | None) -> tuple[NDArray[np.float32], int]:
    """As `read_soundfile`, through torchcodec; a whole file is decoded and then cut, for exact spans."""
    decoder = ffmpeg_decoder(path, cause)
    try:
        samples = decoder.get_all_samples()
    except RuntimeError as e:
        raise AudioError("truncated", f"{path}: cannot be decoded to its end ({one_line(e)})") from e
    samples_TC = samples.data.numpy().T
    start, frames = span_frames(path, offset, duration, len(samples_TC), samples.sample_rate)
    return samples_TC[start : start + frames], samples.sample_rate


def ffmpeg_info(path: str, cause: Exception) -> AudioInfo:
    meta = ffmpeg_decoder(path, cause).metadata
    seconds = meta.duration_seconds_from_header or 0.0
    return AudioInfo(float(seconds), int(meta.sample_rate or 0), int(meta.num_channels or 0), str(meta.codec))


def ffmpeg_decoder(path: str, cause: Exception) -> Any:
    """A torchcodec AudioDecoder; AudioError where FFmpeg is not installed or cannot read it either."""
    try:
        import torchcodec.decoders  # loads FFmpeg's libraries: only where needed
    except (ImportError, RuntimeError, OSError) as e:
        raise AudioError(
            "unreadable", f"{path}: libsndfile cannot read it ({one_line(cause)}); other formats need FFmpeg installed"
        ) from e
    try:
        return torchcodec.decoders.AudioDecoder(files.read_bytes(path))
    except (RuntimeError, ValueError) as e:
        raise AudioError("unreadable", f"{path}: not audio that libsndfile or FFmpeg reads ({one_line(cause)})") from e


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(". ")
