"""Short tones as files."""

import io
from pathlib import Path

import numpy as np
import soundfile

RATE = 16000


def tone(hz: float = 300.0, seconds: float = 0.2) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def write_tone(path: Path, hz: float = 300.0, seconds: float = 0.2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "FLAC" if path.suffix == ".flac" else "WAV"
    soundfile.write(path, tone(hz, seconds), RATE, format=kind)
    return path


def flac_bytes(hz: float = 300.0) -> bytes:
    out = io.BytesIO()
    soundfile.write(out, tone(hz), RATE, format="FLAC")
    return out.getvalue()
