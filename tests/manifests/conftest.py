"""Audio files with known samples."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from hypothesis import settings
from numpy.typing import NDArray

from coat.manifests.audio.clip import AudioError
from coat.manifests.audio.file import decode

settings.register_profile("coat", deadline=None)  # a busy machine is no failure
settings.load_profile("coat")

RATE = 16_000
WriteAudio = Callable[..., Path]
SOUND = np.random.default_rng(0).uniform(-0.9, 0.9, 3 * RATE)


def sine(seconds: float = 1.0, hz: float = 440.0, rate: int = RATE, peak: float = 0.5) -> NDArray[np.float64]:
    return peak * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


@pytest.fixture
def write_audio(tmp_path: Path) -> WriteAudio:
    """`write_audio("a.wav", seconds=1.0)`: a sine below tmp_path; gives its path."""

    def write(name: str, seconds: float = 1.0, rate: int = RATE) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, sine(seconds, rate=rate), rate)
        return path

    return write


def encoded(samples: np.ndarray, container: str, encoding: str | None = None, rate: int = RATE) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=container, subtype=encoding)
    return out.getvalue()


def reason(path: Path | str, offset: float = 0.0, duration: float | None = None) -> str:
    with pytest.raises(AudioError) as e:
        decode(str(path), offset, duration)
    assert "\n" not in str(e.value)
    return e.value.reason


def with_frame_count(flac: bytes, frames: int) -> bytes:
    """STREAMINFO has the number of samples in the low 36 bits of bytes 18 to 25."""
    value = int.from_bytes(flac[18:26], "big") >> 36 << 36 | frames
    return flac[:18] + value.to_bytes(8, "big") + flac[26:]


def write_with_ffmpeg(path: Path, codec: str, samples: np.ndarray, rate: int = RATE) -> None:
    """`[T]` or stereo `[T, 2]`, into the container that the name says."""
    layout = "mono" if samples.ndim == 1 else "stereo"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, layout=layout)
        resampler = av.AudioResampler(format=stream.format.name, layout=layout, rate=rate)
        frame = av.AudioFrame.from_ndarray(samples.astype(np.float32).reshape(1, -1), format="flt", layout=layout)
        frame.sample_rate = rate
        for converted in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(converted))
        container.mux(stream.encode(None))
