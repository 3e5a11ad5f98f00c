"""Audio files with known samples."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import settings
from numpy.typing import NDArray

settings.register_profile("coat", deadline=None)  # a busy machine is no failure
settings.load_profile("coat")

RATE = 16_000
WriteAudio = Callable[..., Path]


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
