"""The audio of a sample: decoded, cut, encoded. T samples."""

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import soundfile
from numpy.typing import NDArray

from coat.manifests import storage
from coat.manifests.audio.file import AudioFile, check_span
from coat.manifests.corpus.utterance import Utterance
from coat.pipeline.shards.pieces import nearest_frame
from coat.pipeline.shards.plan import PlannedSample

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


@dataclass(frozen=True)
class DecodedAudio:
    """The sound of a whole utterance at the rate of the shards."""

    samples_T: NDArray[np.float32]
    rate: int  # Hz
    seconds: float
    digest: str


@lru_cache(maxsize=1)
def decode_utterance(audio: str, offset: float, duration: float | None, rate: int | None) -> DecodedAudio:
    """The whole utterance; `rate` None: at the rate of its file.

    The pieces of a long utterance come one after another, so the utterance that was decoded last is kept.
    """
    check_span(audio, offset, duration)
    span = AudioFile(audio).span(offset, duration)
    rate = rate or span.rate
    samples_T = np.concatenate(list(span.pieces(rate)))
    return DecodedAudio(samples_T, rate, span.seconds, span.digest)


def piece_samples(decoded: DecodedAudio, sample: PlannedSample) -> NDArray[np.float32]:
    """The part of the utterance that a sample has."""
    if sample.seconds is None:
        return decoded.samples_T
    first, stop = (nearest_frame(t, decoded.rate) for t in (sample.start, sample.start + sample.seconds))
    return decoded.samples_T[first:stop]


def original_file(utterance: Utterance, decoded: DecodedAudio) -> dict[str, bytes]:
    """By suffix the file's bytes, where the utterance is the whole of a file that libsndfile reads; else nothing."""
    data = storage.read_bytes(utterance.audio)
    try:
        info = soundfile.info(io.BytesIO(data))
    except soundfile.LibsndfileError:
        return {}
    is_whole = abs(info.frames - len(decoded.samples_T)) <= 1 and info.samplerate == decoded.rate
    return {AUDIO_SUFFIXES[info.format]: data} if info.format in AUDIO_SUFFIXES and is_whole else {}


def encode_flac(samples_T: NDArray[np.float32], rate: int) -> bytes:
    """16-bit mono FLAC; resampling may overshoot full scale, which is clipped."""
    sink = io.BytesIO()
    soundfile.write(sink, np.clip(samples_T, -1.0, 1.0), rate, format="FLAC", subtype="PCM_16")
    return sink.getvalue()
