"""What libsndfile cannot read, through FFmpeg (torchcodec): a file as a whole. Its seeks are not all exact."""

from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from coat.manifests.audio import containers, faults
from coat.manifests.audio.clip import AudioError, AudioInfo
from coat.manifests.errors import one_line

# FFmpeg's durations count padding of codecs: up to a frame or two.
FFMPEG_TOLERANCE_S = 0.1


def read_whole_file(path: str, cause: Exception) -> tuple[NDArray[np.float32], int]:
    """A whole file through torchcodec, `[T]` mono and not checked for NaN, and its rate."""
    decoder = open_decoder(path, cause)
    try:
        samples = decoder.get_all_samples()
    except RuntimeError as e:
        raise AudioError("truncated", f"{path}: cannot be decoded to its end ({one_line(e, 200)})") from e
    stated, decoded = decoder.metadata.duration_seconds or 0.0, samples.data.shape[1] / samples.sample_rate
    if decoded < stated - FFMPEG_TOLERANCE_S and containers.states_duration(faults.read_whole(path)):
        raise AudioError("truncated", f"{path}: {decoded:.3f} s of {stated:.3f} s; the file is cut short")
    return samples.data.numpy().T.mean(axis=1, dtype=np.float32), samples.sample_rate


def read_info(path: str, cause: Exception) -> AudioInfo:
    """Of the stream or its container; 0 seconds where neither says how long it is."""
    meta = open_decoder(path, cause).metadata
    return AudioInfo(
        float(meta.duration_seconds or 0.0), int(meta.sample_rate or 0), int(meta.num_channels or 0), str(meta.codec)
    )


def open_decoder(path: str, cause: Exception) -> Any:
    """A torchcodec AudioDecoder; AudioError where FFmpeg is not installed or cannot read it either."""
    data = faults.read_whole(path)
    if containers.is_cut_short(data):
        raise AudioError("truncated", f"{path}: ends inside its header or before its audio; the file is cut short")
    try:
        import torchcodec.decoders  # loads torch, and later FFmpeg's libraries: only where needed

        return torchcodec.decoders.AudioDecoder(data)  # pyright: ignore[reportPrivateImportUsage]
    except (ImportError, RuntimeError, ValueError, OSError) as e:
        # libsndfile's own words: what comes before them in its error may have the address of an object in memory
        said = one_line(cause, 200)
        if isinstance(cause, soundfile.LibsndfileError):
            said = cause.error_string.rstrip(". ")
        # torchcodec looks for FFmpeg when it first decodes, and then says that it cannot load itself.
        if isinstance(e, ImportError | OSError) or "load libtorchcodec" in str(e):
            reason = f"libsndfile cannot read it ({said}); other formats need FFmpeg's libraries installed"
        else:
            reason = f"not audio that libsndfile or FFmpeg reads ({said})"
        raise AudioError("unreadable", f"{path}: {reason}") from e
