"""Audio files to mono float32: libsndfile first, FFmpeg (torchcodec) for what it cannot read.

T samples. A span that cannot be decoded raises AudioError with a reason that is recorded with its row.
"""

import io
import os
import stat
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import soundfile
import soxr
import xxhash
from numpy.typing import NDArray

from coat.manifests import containers, files

# Manifests round durations; a span may end this much after its file, and is cut there.
SPAN_TOLERANCE_S = 0.05
# An MP3 frame takes bits from frames before it, so decoding begins this much before a span: right after
# a seek libsndfile gives up to 0.25 s of wrong samples.
MP3_PREROLL_S = 2.0
# More frames than any file has: what libsndfile says of a FLAC that was written to a pipe
# (length unknown), and cannot seek in.
UNKNOWN_FRAMES = 1 << 40


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
    """Read the header. AudioError as `decode` gives it, where the header tells."""
    source = open_source(path)
    try:
        info = soundfile.info(source)
    except (soundfile.LibsndfileError, TypeError) as e:
        return ffmpeg_info(path, e)
    check_whole(path, source, info)
    seconds = decode(path).seconds if info.frames >= UNKNOWN_FRAMES else info.frames / info.samplerate
    return AudioInfo(seconds, info.samplerate, info.channels, info.format)


def decode(path: str, offset: float = 0.0, duration: float | None = None) -> Clip:
    """Decode a span (seconds; no duration: to the end) and mix it to mono by the mean of its channels."""
    if offset < 0 or (duration is not None and duration <= 0):
        raise AudioError("span", f"{path}: offset {offset} s and duration {duration} s; neither may be negative")
    source = open_source(path)
    try:
        samples_TC, rate = read_soundfile(path, source, offset, duration)
    except (soundfile.LibsndfileError, TypeError) as e:  # TypeError: a name that ends in .raw
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
            source: str | io.BytesIO = str(files.local_path(path))
            status = os.stat(source)
            if not stat.S_ISREG(status.st_mode):  # a pipe would block, a device never end
                raise AudioError("unreadable", f"{path}: not a regular file; expected an audio file")
            size = status.st_size
        else:
            data = files.read_bytes(path)
            size, source = len(data), io.BytesIO(data)
    except (FileNotFoundError, NotADirectoryError) as e:
        raise AudioError("missing", f"{path}: no such file") from e
    except (OSError, ValueError) as e:  # ValueError: a NUL in the name, or a protocol that is refused
        raise AudioError("unreadable", f"{path!r}: {one_line(e)}") from e
    if size == 0:
        raise AudioError("empty", f"{path}: the file has no bytes")
    return source


class Opened(Protocol):
    """What libsndfile says of a file that it opened."""

    format: Any
    extra_info: Any


def check_whole(path: str, source: str | io.BytesIO, opened: Opened) -> None:
    """AudioError where libsndfile guessed raw audio from a suffix such as .au, or passed over a cut."""
    if opened.format == "RAW":
        raise AudioError("unreadable", f"{path}: no header of an audio file; expected WAV, FLAC, OGG, MP3 or the like")
    if containers.log_says_cut(opened.extra_info) or (
        opened.format == "OGG" and not containers.ends_in_ogg_page(source)
    ):
        raise AudioError("truncated", f"{path}: shorter than its header says; the file is cut short")


def read_soundfile(
    path: str, source: str | io.BytesIO, offset: float, duration: float | None
) -> tuple[NDArray[np.float32], int]:
    """`[T, channels]` and the rate. AudioError where the file holds less than its header or span says."""
    with soundfile.SoundFile(source) as f:
        check_whole(path, source, f)
        if f.frames >= UNKNOWN_FRAMES:
            return read_ffmpeg(path, ValueError("its header does not say how long it is"), offset, duration)
        try:
            start, frames = span_frames(path, offset, duration, f.frames, f.samplerate)
            preroll = min(start, round(MP3_PREROLL_S * f.samplerate)) if f.format.startswith("MP") else 0
            f.seek(start - preroll)
            samples_TC = cast(NDArray[np.float32], f.read(preroll + frames, dtype="float32", always_2d=True))[preroll:]
        except soundfile.LibsndfileError as e:  # the header was sound, so the data are not
            raise AudioError("truncated", f"{path}: cannot be decoded to its end ({one_line(e)})") from e
        except MemoryError as e:
            raise AudioError("truncated", f"{path}: {f.frames} samples by its header; more than memory holds") from e
        if len(samples_TC) < frames:
            raise AudioError("truncated", f"{path}: {len(samples_TC)} samples of {frames}; the file is cut short")
        return samples_TC, f.samplerate


def span_frames(path: str, offset: float, duration: float | None, total: int, rate: int) -> tuple[int, int]:
    """First sample and number of samples of a span; AudioError where it ends after the file does."""
    if not total:
        raise AudioError("empty", f"{path}: no samples; expected audio")
    start = round(offset * rate)
    stop = total if duration is None else round((offset + duration) * rate)
    if start >= total or stop > total + SPAN_TOLERANCE_S * rate:
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
    data = files.read_bytes(path)
    if containers.header_says_cut(data):
        raise AudioError("truncated", f"{path}: ends inside its header or before its audio; the file is cut short")
    try:
        import torchcodec.decoders  # loads torch, and later FFmpeg's libraries: only where needed

        return torchcodec.decoders.AudioDecoder(data)  # pyright: ignore[reportPrivateImportUsage]
    except (ImportError, RuntimeError, ValueError, OSError) as e:
        # torchcodec looks for FFmpeg when it first decodes, and then says that it cannot load itself.
        if isinstance(e, ImportError | OSError) or "load libtorchcodec" in str(e):
            reason = f"libsndfile cannot read it ({one_line(cause)}); other formats need FFmpeg's libraries installed"
        else:
            reason = f"not audio that libsndfile or FFmpeg reads ({one_line(cause)})"
        raise AudioError("unreadable", f"{path}: {reason}") from e


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(". ")
