"""What a lower precision costs: how far its frames lie from those of float32."""

from dataclasses import replace

import numpy as np

from coat.extractors.conformance.check import NotApplicable, require
from coat.extractors.conformance.sounds import noise, tone
from coat.extractors.expert import Expert, extract_windows
from coat.extractors.windows import Frames, Waveform

LARGEST_ERROR = 0.1  # of the frames' norm: beyond that a lower precision gives other targets, not coarser ones


def bfloat16_is_near(expert: Expert) -> str:
    """The error of `--precision bfloat16` on a voice-like sound: of the frames' norm, and of what varies in time.

    The second says more of a trained model: its frames share a large part that tells nothing. Of random weights, whose
    frames hardly vary, it says nothing.
    """
    if "precision" not in expert.takes:
        raise NotApplicable("it takes no --precision")
    if expert.options.precision != "float32":
        raise NotApplicable(f"it computes in {expert.options.precision} already")
    lower = type(expert)(replace(expert.options, precision="bfloat16"))
    lower.load(expert.device)
    x = voice(expert.spec.sample_rate)
    (exact,), (near,) = extract_windows(expert, [x]), extract_windows(lower, [x])
    error = rms(near - exact)
    of_norm = error / max(rms(exact), 1e-12)
    require(of_norm <= LARGEST_ERROR, f"bfloat16 is off by {of_norm:.1%} of the frames' norm; use float32")
    of_variation = error / max(rms(exact - exact.mean(axis=0)), 1e-12)
    return f"off by {of_norm:.2%} of the frames' norm, {of_variation:.2%} of what varies in time"


def voice(rate: int) -> Waveform:
    """Four seconds: four syllables a second, over a pitch that rises and falls, in noise."""
    x = noise(4.0, rate, level=0.003).copy()
    for i in range(16):
        start, size = round(i * rate / 4), round(0.2 * rate)
        x[start : start + size] += tone(0.2, rate, 120.0 * 2 ** (0.5 * np.sin(i)))[:size] * np.hanning(size)
    return x.astype(np.float32)


def rms(values: Frames) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
