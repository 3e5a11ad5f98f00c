"""What libsndfile cannot read, through FFmpeg: a stream as a whole. Its seeks are not all exact.

FFmpeg's libraries come with PyAV (`av`), whose wheel holds them: nothing of the system's is used.
"""

import io
from typing import Any

import av
import av.error
import numpy as np
import soundfile
from numpy.typing import NDArray

from coat.manifests.audio import containers
from coat.manifests.audio.channels import Mixer
from coat.manifests.audio.clip import AudioError, AudioInfo
from coat.manifests.errors import one_line

# FFmpeg's durations count padding of codecs: up to a frame or two.
FFMPEG_TOLERANCE_S = 0.1
FULL_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63}  # of formats that are whole numbers
STRICT = {"err_detect": "crccheck+bitstream+buffer+explode"}  # damage is an error, and is not concealed


def read_whole(
    path: str, data: bytes, cause: Exception, channel: int | None, strict: bool = False
) -> tuple[NDArray[np.float32], int]:
    """A whole file, `[T]` of one channel, or mixed, and its rate. AudioError where it cannot be had to its end.

    `strict`: nothing that is damaged is concealed.
    """
    mixer = Mixer(path, channel)
    with open_container(path, data, cause, STRICT if strict else {}) as container:
        stream = container.streams.audio[0]
        stated = stated_seconds(container)
        pieces: list[NDArray[np.float32]] = []
        rates: set[int] = set()
        try:
            for frame in container.decode(stream):
                pieces.append(mixer.mono(frame_samples(frame)))
                rates.add(frame.sample_rate)
        except (av.error.FFmpegError, EOFError) as e:
            raise AudioError("truncated", f"{path}: cannot be decoded to its end ({one_line(e, 200)})") from e
    if len(rates) > 1:
        raise AudioError("unreadable", f"{path}: changes its rate ({', '.join(map(str, sorted(rates)))} Hz); split it")
    if not rates:
        raise AudioError("empty", f"{path}: no samples; expected audio")
    samples_T, rate = np.concatenate(pieces), rates.pop()
    decoded = len(samples_T) / rate
    if decoded < stated - FFMPEG_TOLERANCE_S and containers.states_duration(data):
        raise AudioError("truncated", f"{path}: {decoded:.3f} s of {stated:.3f} s; the file is cut short")
    if 0 < stated < decoded - FFMPEG_TOLERANCE_S and containers.states_duration(data):
        said = f"its header states {stated:.3f} s, and it holds {decoded:.3f} s; write it again"
        raise AudioError("unreadable", f"{path}: {said}")
    mixer.check()
    return samples_T, rate


def read_info(path: str, data: bytes, cause: Exception) -> AudioInfo:
    """As its container states it; 0 seconds where it does not say how long it is. What packets say is not to be relied
    on: of Ogg behind an ID3 tag FFmpeg's are days long.
    """
    with open_container(path, data, cause) as container:
        context = container.streams.audio[0].codec_context
        seconds = stated_seconds(container) if containers.states_duration(data) else 0.0
        return AudioInfo(seconds, context.sample_rate, context.channels, context.name)


def stated_seconds(container: Any) -> float:
    stream = container.streams.audio[0]
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


def frame_samples(frame: Any) -> NDArray[np.float32]:
    """`[T, C]`"""
    values = frame.to_ndarray()  # [C, T] of planar formats, else [1, T * C]
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    name = frame.format.name.removesuffix("p")
    samples_CT = values.astype(np.float32)
    if name in FULL_SCALE:
        samples_CT = samples_CT / np.float32(FULL_SCALE[name]) - np.float32(name == "u8")
    return samples_CT.T


def open_container(path: str, data: bytes, cause: Exception, options: dict[str, str] | None = None) -> Any:
    """An av container with one stream of audio; AudioError where FFmpeg cannot read it either."""
    if containers.is_cut_short(data):
        raise AudioError("truncated", f"{path}: ends inside its header or before its audio; the file is cut short")
    try:
        container = av.open(io.BytesIO(data), options=options or {})
    except (av.error.FFmpegError, EOFError, ValueError) as e:
        # libsndfile's own words: what comes before them in its error may have the address of an object in memory
        said = cause.error_string.rstrip(". ") if isinstance(cause, soundfile.LibsndfileError) else one_line(cause, 200)
        reason = f"not audio that libsndfile or FFmpeg reads ({said})"
        raise AudioError("unreadable", f"{path}: {reason}") from e
    if (count := len(container.streams.audio)) != 1:
        container.close()
        said = f"{count} streams of audio at once; write the one that is meant to a file of its own"
        raise AudioError("unreadable", f"{path}: {said if count else 'no audio in it, though FFmpeg reads it'}")
    if container.streams.audio[0].codec_context is None:
        container.close()
        raise AudioError("unreadable", f"{path}: its audio is of a codec that neither libsndfile nor FFmpeg knows")
    return container
