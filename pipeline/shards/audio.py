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
from coat.pipeline.shards.plan import Sample
from coat.pipeline.shards.segments import nearest

# Files that a reader of shards decodes as they are (by libsndfile), by what libsndfile calls them.
SUFFIXES = {"FLAC": "flac", "WAV": "wav", "WAVEX": "wav", "OGG": "ogg", "MP3": "mp3", "MPEG": "mp3", "AIFF": "aiff"}


@dataclass(frozen=True)
class Heard:
    """The sound of a whole utterance at the rate of the shards."""

    samples_T: NDArray[np.float32]
    rate: int  # Hz
    seconds: float
    digest: str


@lru_cache(maxsize=1)
def hear(audio: str, offset: float, duration: float | None, rate: int | None) -> Heard:
    """The pieces of a long utterance come one after another: the last one that was decoded is kept."""
    check_span(audio, offset, duration)
    found = AudioFile(audio).span(offset, duration)
    wanted = rate or found.rate
    samples_T = np.concatenate(list(found.pieces(wanted)))
    return Heard(samples_T, wanted, found.seconds, found.digest)


def cut(heard: Heard, sample: Sample) -> NDArray[np.float32]:
    if sample.seconds is None:
        return heard.samples_T
    first, stop = (nearest(t, heard.rate) for t in (sample.start, sample.start + sample.seconds))
    return heard.samples_T[first:stop]


def original(u: Utterance, heard: Heard) -> dict[str, bytes]:
    """The file's bytes, where the utterance is the whole of a file that libsndfile reads; else nothing."""
    data = storage.read_bytes(u.audio)
    try:
        info = soundfile.info(io.BytesIO(data))
    except soundfile.LibsndfileError:
        return {}
    is_whole = abs(info.frames - len(heard.samples_T)) <= 1 and info.samplerate == heard.rate
    return {SUFFIXES[info.format]: data} if info.format in SUFFIXES and is_whole else {}


def flac(samples_T: NDArray[np.float32], rate: int) -> bytes:
    """16-bit mono FLAC; resampling may overshoot full scale, which is clipped."""
    sink = io.BytesIO()
    soundfile.write(sink, np.clip(samples_T, -1.0, 1.0), rate, format="FLAC", subtype="PCM_16")
    return sink.getvalue()
